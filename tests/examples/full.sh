#!/bin/sh
# A JVM with a /tmp of its own, as with PrivateTmp=yes, on a filesystem that writes nothing in place, and that fills up.
exec unshare -m sh -c '
mount -o loop /srv/tmp.img /tmp
rmiregistry 12345 >/dev/null &
until [ -s "/tmp/hsperfdata_$(id -un)/$!" ]; do sleep 1; done
sleep 5
while kill -0 $! 2>/dev/null; do
	dd if=/dev/zero bs=64k 2>/dev/null
	dd if=/dev/zero bs=4k 2>/dev/null
	sync -f /tmp
done >/tmp/download
wait $!'
