#!/bin/sh
# In the guest: filesystems with no block left, and each program under mkwrite. $1 is the directory of compiled classes.
set -e
mkwrite() {
	printf '\n$ mkwrite'
	printf ' %s' "$@"
	echo
	code=0
	COLUMNS=80 python3 -m tracer "$@" || code=$?
	echo "exit code $code"
}
cp tests/examples/*.py tests/examples/*.sh "$1"/Mapped.class /srv
export PYTHONPATH="$PWD" LC_ALL=C.UTF-8
cd /srv
modprobe -a loop ext4 btrfs
truncate -s 64M disk.img
mkfs.ext4 -q -m 0 disk.img
truncate -s 160M tmp.img
mkfs.btrfs -q tmp.img
mkdir -p db
mount -o loop disk.img db
mkdir db/users db/java
python3 load.py db/users 100
dd if=/dev/zero of=db/backup bs=1M 2>/dev/null || true
dd if=/dev/zero of=db/backup.2 bs=4k 2>/dev/null || true
mkwrite sigbus -- python3 load.py /srv/db/users 100000
mkwrite sigbus -- java -cp . Mapped /srv/db/java/stats.bin
mkwrite sigbus -- sh full.sh
mkwrite sigbus -- sh truncated.sh
mkwrite sigbus -- python3 wal.py /srv/app.db
mkwrite sigbus -- sh container.sh
ip link set lo up
mkdir www
head -c 16M /dev/urandom >www/release.tar
mkwrite sigbus -- sh httpd.sh
echo 100 >/proc/sys/vm/nr_hugepages
install -d -o postgres pg
mkwrite sigbus -- sh initdb.sh
