#!/bin/sh
# A JVM whose statistics file is made empty while it runs, as something that cleans /tmp might.
rmiregistry 12345 >/dev/null &
file=/tmp/hsperfdata_$(id -un)/$!
until [ -s "$file" ]; do sleep 1; done
sleep 5
truncate -s 0 "$file"
wait $!
