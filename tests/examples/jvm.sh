#!/bin/sh
# A JVM whose statistics file is made empty while it runs, as something that cleans /tmp might.
rmiregistry 12345 &
sleep 8
truncate -s 0 "/tmp/hsperfdata_$(id -un)/$!"
sleep 4
kill $!
