#!/bin/sh
# What udhcpc calls: takes the address, the way out and the names' server that it was given.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ifconfig "$interface" "$ip" netmask "$subnet"
route add default gw "$router" dev "$interface" 2>/dev/null
echo "nameserver $dns" >/etc/resolv.conf
