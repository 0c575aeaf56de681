#!/bin/sh
# What xl calls for a guest's disk, which is a block device here: Xen's own script wants udev.
[ "$1" = add ] || exit 0
device=$(xenstore-read "$XENBUS_PATH/params")
number=$(busybox stat -L -c %t:%T "$device")
xenstore-write "$XENBUS_PATH/physical-device" "$number" "$XENBUS_PATH/hotplug-status" connected
