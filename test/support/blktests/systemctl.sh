#!/bin/sh
# The verbs of systemctl that blktests needs for tlshd, where no systemd runs.
case $1 in
  list-unit-files) echo 'tlshd.service' ;;
  is-active) kill -0 "$(cat /run/nvmet/tlshd.pid 2>/dev/null)" 2>/dev/null ;;
  start)
    tlshd -s -c /tmp/tlshd.conf >/run/nvmet/tlshd.log 2>&1 &
    echo $! >/run/nvmet/tlshd.pid
    ;;
  stop) kill "$(cat /run/nvmet/tlshd.pid)" ;;
  *) exit 1 ;;
esac
