#!/bin/sh
# What xl calls for a guest's network interface: it joins the bridge.
[ "$1" = online ] || [ "$1" = add ] || exit 0
ifconfig "$vif" up
brctl addif xenbr0 "$vif"
xenstore-write "$XENBUS_PATH/hotplug-status" connected
