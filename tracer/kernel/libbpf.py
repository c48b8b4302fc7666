"""libbpf, through ctypes: the one library that talks to bpf(2). It comes with BCC, which loads programs with it too."""

from __future__ import annotations

import ctypes as ct
import os
from functools import cache
from typing import Any, Final

from tracer.errors import Exit, MkwriteError

#: int (*ring_buffer_sample_fn)(void *ctx, void *data, size_t size)
SAMPLE: Final = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)

_u32p = ct.POINTER(ct.c_uint32)
_PROTOTYPES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "btf__parse": (ct.c_void_p, (ct.c_char_p, ct.c_void_p)),
    "btf__parse_split": (ct.c_void_p, (ct.c_char_p, ct.c_void_p)),
    "btf__free": (None, (ct.c_void_p,)),
    "btf__find_by_name_kind": (ct.c_int32, (ct.c_void_p, ct.c_char_p, ct.c_uint32)),
    "btf__type_by_id": (ct.c_void_p, (ct.c_void_p, ct.c_uint32)),
    "btf__name_by_offset": (ct.c_char_p, (ct.c_void_p, ct.c_uint32)),
    "btf__resolve_size": (ct.c_int64, (ct.c_void_p, ct.c_uint32)),
    "bpf_map_create": (ct.c_int, (ct.c_int, ct.c_char_p, *[ct.c_uint32] * 3, ct.c_void_p)),
    "bpf_prog_load": (ct.c_int, (ct.c_int, *[ct.c_char_p] * 3, ct.c_size_t, ct.c_void_p)),
    "bpf_raw_tracepoint_open": (ct.c_int, (ct.c_char_p, ct.c_int)),
    "bpf_prog_test_run_opts": (ct.c_int, (ct.c_int, ct.c_void_p)),
    "bpf_link_create": (ct.c_int, (ct.c_int, ct.c_int, ct.c_int, ct.c_void_p)),
    "bpf_iter_create": (ct.c_int, (ct.c_int,)),
    "bpf_map_update_elem": (ct.c_int, (ct.c_int, ct.c_char_p, ct.c_char_p, ct.c_uint64)),
    "bpf_map_lookup_elem": (ct.c_int, (ct.c_int, ct.c_char_p, ct.c_char_p)),
    "bpf_map_delete_elem": (ct.c_int, (ct.c_int, ct.c_char_p)),
    "bpf_map_lookup_batch": (ct.c_int, (ct.c_int, *[ct.c_void_p] * 4, _u32p, ct.c_void_p)),
    "bpf_btf_get_next_id": (ct.c_int, (ct.c_uint32, _u32p)),
    "bpf_btf_get_fd_by_id": (ct.c_int, (ct.c_uint32,)),
    "bpf_obj_get_info_by_fd": (ct.c_int, (ct.c_int, ct.c_void_p, _u32p)),
    "ring_buffer__new": (ct.c_void_p, (ct.c_int, SAMPLE, ct.c_void_p, ct.c_void_p)),
    "ring_buffer__epoll_fd": (ct.c_int, (ct.c_void_p,)),
    "ring_buffer__consume": (ct.c_int, (ct.c_void_p,)),
    "ring_buffer__free": (None, (ct.c_void_p,)),
}


@cache
def libbpf() -> Any:
    """Return the library with the prototypes that we use.

    Functions returning int give -errno on failure (see ``checked``).
    """
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise MkwriteError(
            f"The library libbpf.so.1 cannot be loaded ({error}).",
            "Install BCC, which brings it (Debian and Ubuntu: apt-get install python3-bpfcc).",
            Exit.NO_BCC,
        ) from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    # It would print to stderr; every failure is reported by a return value too.
    lib.libbpf_set_print.argtypes = (ct.c_void_p,)
    lib.libbpf_set_print(None)
    return lib


def checked(result: int) -> int:
    """Return ``result`` of a libbpf function, or its error as an OSError."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
