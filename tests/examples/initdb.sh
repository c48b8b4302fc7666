#!/bin/sh
# PostgreSQL makes a database where the kernel has huge pages, but the container may take few of them.
cgroup=/sys/fs/cgroup/database
echo +hugetlb >/sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup && echo 16M >$cgroup/hugetlb.2MB.max && echo $$ >$cgroup/cgroup.procs
exec setpriv --reuid postgres --regid postgres --clear-groups /usr/lib/postgresql/*/bin/initdb -D /srv/pg >/dev/null
