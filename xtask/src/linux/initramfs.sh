#!/bin/busybox sh
# The first process of a Linux guest: what its kernel has as modules, then the root file system takes over.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
for module in $($bb cat /modules/order); do $bb insmod /modules/$module; done
tries=0
while [ ! -e /dev/xvda ] && [ $tries -lt 100 ]; do $bb sleep 0.1; tries=$((tries + 1)); done
if $bb mount -t ext4 /dev/xvda /mnt; then
    $bb mount --move /dev /mnt/dev
    exec $bb switch_root /mnt /sbin/init
fi
echo "no ext4 file system on xvda: give the guest a disk that holds its root"
$bb poweroff -f
