#!/bin/bash
# A one-node Ceph in a folder: one monitor, one manager, OSDS (1 or 3) OSDs, each with a copy of all; loopback only, no root services.
# Usage: ceph-one-node.sh DIR [PORT [OSDS [memstore|bluestore]]]
# The pids are in DIR/{mon,mgr,osd}.p, those of more OSDs in osd1.p and osd2.p. DIR/osd.sh, osd1.sh and osd2.sh start an OSD again after
# kill -9: what a memstore had is gone then, a bluestore in its file is as it was.
set -e
D=$1; PORT=${2:-16789}; OSDS=${3:-1}; STORE=${4:-memstore}; mkdir -p $D/{mon,mgr,osd,osd1,osd2,run,log}
FSID=$(cat /proc/sys/kernel/random/uuid)
cat > $D/ceph.conf <<C
[global]
fsid = $FSID
mon_host = v2:127.0.0.1:$PORT
ms_bind_ipv4 = true
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = $OSDS
osd_pool_default_min_size = 1
osd_heartbeat_interval = 1
osd_heartbeat_grace = 25
mon_osd_min_down_reporters = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_crush_chooseleaf_type = 0
osd_objectstore = $STORE
memstore_device_bytes = 2147483648
bluestore_block_size = 1073741824
bluestore_cache_autotune = false
bluestore_cache_size = 33554432
osd_class_load_list = *
osd_class_default_list = *
rbd_default_features = 61
run_dir = $D/run
admin_socket =
pid_file = $D/run/\$name.pid
log_file = $D/log/\$name.log
mon_data = $D/mon
mgr_data = $D/mgr
osd_data = $D/osd
mon_cluster_log_file = $D/log/cluster.log
public_addr = 127.0.0.1
C
export CEPH_CONF=$D/ceph.conf
C="-c $D/ceph.conf"
monmaptool --create --fsid $FSID --addv a "[v2:127.0.0.1:$PORT]" $D/monmap >/dev/null
ceph-mon $C --mkfs -i a --monmap $D/monmap
ceph-mon $C -i a -f >$D/log/mon.out 2>&1 & echo $! >$D/mon.p
ceph-mgr $C -i x -f >$D/log/mgr.out 2>&1 & echo $! >$D/mgr.p
for ((I = 0; I < OSDS; I++)); do
  N=osd$([ $I = 0 ] || echo $I)
  U=$(cat /proc/sys/kernel/random/uuid)
  timeout 60 ceph $C osd new $U >/dev/null
  # --mkfs leaves a store alone that is there already
  echo "ceph-osd $C -i $I --osd-data $D/$N --mkfs --osd-uuid $U && exec ceph-osd $C -i $I --osd-data $D/$N -f" >$D/$N.sh
  bash $D/$N.sh >$D/log/$N.out 2>&1 & echo $! >$D/$N.p
done
timeout 60 ceph $C osd pool create rbd 8 >/dev/null
timeout 60 rbd $C pool init rbd
timeout 60 rbd $C create --size 64M disk
timeout 60 rbd $C ls
