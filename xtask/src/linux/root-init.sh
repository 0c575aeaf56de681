#!/bin/sh
# The first process on the root file system: mounts, the network, then the commands of /etc/exec or exec="..." between the
# marks that the host looks for, or a shell on the console.
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
hostname linux
dmesg -n 1
ifconfig lo 127.0.0.1 up
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 20 ]; do sleep 0.1; tries=$((tries + 1)); done
if ifconfig eth0 up 2>/dev/null; then
    tries=0
    while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    timeout 20 udhcpc -i eth0 -s /etc/udhcpc.sh -n -q -t 10 -T 1 >/dev/null 2>&1
fi
run=$(cat /etc/exec 2>/dev/null)
[ -n "$run" ] || run=$(sed -n 's/.*exec="\([^"]*\)".*/\1/p' /proc/cmdline)
if [ -n "$run" ]; then
    printf '\036exec-begin\n'
    sh -c "$run"
    printf '\036exec-end %s\n' $?
else
    setsid cttyhack sh
fi
sync
mount -o remount,ro /
poweroff -f
