"""Read the beginning of a file from a web server, let somebody cut the file, and read on: download.py PORT PATH."""

import http.client
import subprocess
import sys
import time
from pathlib import Path

path = Path(sys.argv[2])
while True:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    try:
        connection.request("GET", f"/{path.name}")
        break
    except ConnectionRefusedError:  # it does not listen yet
        time.sleep(0.1)
answer = connection.getresponse()
read = len(answer.read(1 << 16))
subprocess.run(["truncate", "-s", "1M", path], check=True)
while data := answer.read(1 << 16):
    read += len(data)
print(f"got {read} bytes of {answer.headers['Content-Length']}")
