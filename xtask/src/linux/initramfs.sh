#!/bin/busybox sh
# The first process of a Linux guest: what its kernel has as modules, then the root file system takes over. The disk is a
# front end's, or an emulated one.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
for module in $($bb cat /modules/order); do $bb insmod /modules/$module; done
tries=0
while [ ! -e /dev/xvda ] && [ ! -e /dev/sda ] && [ $tries -lt 100 ]; do $bb sleep 0.1; tries=$((tries + 1)); done
disk=/dev/xvda
[ -e $disk ] || disk=/dev/sda
if $bb mount -t ext4 $disk /mnt; then
    $bb mount --move /dev /mnt/dev
    exec $bb switch_root /mnt /sbin/init
fi
echo "no ext4 file system on $disk: give the guest a disk that holds its root"
$bb poweroff -f
