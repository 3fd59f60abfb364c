#!/bin/bash
# A one-node Ceph in a folder: one monitor, one manager, one OSD in memory; loopback only, no root services.
set -e
D=$1; PORT=${2:-16789}; mkdir -p $D/{mon,mgr,osd,run,log}
FSID=$(cat /proc/sys/kernel/random/uuid)
cat > $D/ceph.conf <<C
[global]
fsid = $FSID
mon_host = v2:127.0.0.1:$PORT
ms_bind_ipv4 = true
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 2147483648
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
U=$(cat /proc/sys/kernel/random/uuid)
timeout 60 ceph $C osd new $U >/dev/null
ceph-osd $C -i 0 --mkfs --osd-uuid $U >$D/log/mkfs.out 2>&1
ceph-osd $C -i 0 -f >$D/log/osd.out 2>&1 & echo $! >$D/osd.p
timeout 60 ceph $C osd pool create rbd 8 >/dev/null
timeout 60 rbd $C pool init rbd
timeout 60 rbd $C create --size 64M disk
timeout 60 rbd $C ls
