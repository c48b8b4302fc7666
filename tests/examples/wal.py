"""Read an SQLite database in WAL mode while its shared memory is made shorter by somebody: wal.py DATABASE."""

import sqlite3
import subprocess
import sys

first, second = (sqlite3.connect(sys.argv[1], isolation_level=None) for _ in range(2))
first.execute("pragma journal_mode=wal")
first.execute("create table t (x)")
second.execute("select count(*) from t").fetchall()
subprocess.run(["truncate", "-s", "0", f"{sys.argv[1]}-shm"], check=True)
first.execute("insert into t values (1)")
