#!/bin/sh
# In the guest: a filesystem with no block left, and each program under mkwrite. $1 is the Python that has mkwrite.
here=$(dirname "$(realpath "$0")")
mkwrite() {
	printf '\n$ mkwrite'
	printf ' %s' "$@"
	echo
	COLUMNS=80 "$python" -m tracer "$@" 2>&1
}
python=$1
mkdir -p /srv/db
truncate -s 64M /tmp/disk
mkfs.ext4 -q -m 0 /tmp/disk
modprobe -a loop ext4
mount -o loop /tmp/disk /srv/db
mkdir /srv/db/users /srv/db/java
cd /tmp && cp "$here"/* "$3"/Mapped.class /tmp && export PYTHONPATH="$2:$3"
python3 load.py /srv/db/users 1000
dd if=/dev/zero of=/srv/db/filler bs=1M 2>/dev/null
dd if=/dev/zero of=/srv/db/rest bs=4k 2>/dev/null
mkwrite sigbus -- python3 load.py /srv/db/users 100000
mkwrite sigbus -- java -cp . Mapped /srv/db/java/stats.bin
mkwrite sigbus -- sh jvm.sh
mkwrite sigbus -- python3 wal.py /tmp/app.db
mkwrite sigbus -- sh container.sh
