"""Put records into an LMDB whose file is sparse, written through its mapping: load.py DIRECTORY RECORDS."""

import sys

import lmdb

with lmdb.open(sys.argv[1], map_size=48 << 20, writemap=True) as environment:
    for number in range(int(sys.argv[2])):
        with environment.begin(write=True) as transaction:
            transaction.put(b"%012d" % number, b"x" * 1000)
