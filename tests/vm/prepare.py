"""Compiles the BPF objects for a kernel on this machine, where it takes seconds and not a minute as under emulation.

What is compiled depends on the kernel's BTF alone, and that lies in its image. The guest then finds the objects in
``CACHE_DIRECTORY`` as a second run on a host would.
"""

from __future__ import annotations

import lzma
import os
import struct
import subprocess
import tempfile
import zlib
from itertools import product
from pathlib import Path
from typing import Final

from tracer.kernel.btf import Btf
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.model.options import Options
from tracer.probes.build import build
from tracer.probes.source import source
from tracer.probes.tracepoints import counts_source

#: What unpacks a stream that begins like this: Debian's kernels for clouds are packed with LZ4 up to 6.1.
_PROGRAMS: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}


def vmlinux(image: Path) -> bytes:
    """The kernel proper in a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length)."""
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + offset
    payload = data[start : start + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    for magic, program in _PROGRAMS.items():
        if payload.startswith(magic):
            # The image's length stands behind the stream, which is called an error after everything is written.
            return subprocess.run([program, "-dcq"], input=payload, capture_output=True, check=False).stdout
    raise ValueError(f"{image} is compressed in a way that is not known here")


def prepare(image: Path, cache: Path, backend: Backend | None = None) -> None:
    """Fill ``cache``, for use as CACHE_DIRECTORY, with the objects for the kernel in ``image``.

    ``backend``: only with the one that a session with ``Options()`` takes with this backend.
    """
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile() as blob:
        blob.write(vmlinux(image))
        blob.flush()
        with Btf(Path(blob.name)) as btf:
            if backend:
                texts = [source(btf, backend, Options.failures, Options.waits)]
            else:
                texts = [source(btf, *choice) for choice in product(FUNCTION_BACKENDS, (False, True), (False, True))]
                texts += [source(btf, Backend.TRACEPOINT, failures=True), counts_source(btf)]
    before = os.environ.get("CACHE_DIRECTORY")
    os.environ["CACHE_DIRECTORY"] = str(cache)
    try:
        for each in texts:
            build(each)
    finally:
        if before is None:
            del os.environ["CACHE_DIRECTORY"]
        else:
            os.environ["CACHE_DIRECTORY"] = before
