#!/bin/busybox sh
# The first process of a Linux dom0: modules, Xen's own toolstack, a bridge to the outside, then the guest of
# /etc/xen/guest.cfg, or the commands of exec="..." between the marks that the host looks for, or a shell.
export PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu
/bin/busybox --install -s /sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
hostname dom0
for module in $(cat /modules/order); do insmod /modules/$module; done
dmesg -n 1
mount -t xenfs xenfs /proc/xen
ifconfig lo 127.0.0.1 up
xenstored --pid-file /run/xenstored.pid
tries=0
while ! xenstore-exists / 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
xen-init-dom0 >/dev/null
xenconsoled --log=none --pid-file /run/xenconsoled.pid
brctl addbr xenbr0
brctl addif xenbr0 eth0
ifconfig eth0 up
ifconfig xenbr0 up
run=$(sed -n 's/.*exec="\([^"]*\)".*/\1/p' /proc/cmdline)
if [ -e /etc/xen/guest.cfg ]; then
    xl create -q -c /etc/xen/guest.cfg
elif [ -n "$run" ]; then
    printf '\036exec-begin\n'
    sh -c "$run"
    printf '\036exec-end %s\n' $?
else
    setsid cttyhack sh
fi
poweroff -f
