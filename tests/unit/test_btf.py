"""Layout from BTF: this machine's own kernel, which need not be traceable to have it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import FIELDS, Btf, header
from tracer.model import Backend
from tracer.probes.build import FILES, text


def test_the_header_puts_every_field_where_the_kernel_has_it(tmp_path: Path) -> None:
    with Btf() as btf:
        layout = header(btf)
        offsets = [(s, f, btf.field(s, f).offset) for s, fields in FIELDS.items() for f in fields]
    checks = "\n".join(
        f'_Static_assert(__builtin_offsetof(struct {s}, {f}) == {offset}, "{s}.{f}");' for s, f, offset in offsets
    )
    types = (
        "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32; typedef unsigned long long u64;"
    )
    source = tmp_path / "layout.c"
    source.write_text(f"{types}\n{layout}\n{checks}\n")
    subprocess.run(["cc", "-fsyntax-only", str(source)], check=True)
    # vm_fault.vma is its first member in every kernel; address follows pgoff.
    found = {(s, f): offset for s, f, offset in offsets}
    assert found["vm_fault", "vma"] == 0
    assert found["vm_fault", "address"] == found["vm_fault", "pgoff"] + 8


def test_arity_and_functions() -> None:
    with Btf() as btf:
        assert btf.arity("do_page_mkwrite") in (1, 2)
        assert btf.arity("do_wp_page") == 1
        assert btf.function("no_such_function_anywhere") is None
        with pytest.raises(MkwriteError) as refusal:
            btf.arity("no_such_function_anywhere")
        assert refusal.value.code is Exit.NO_HOOKS


def test_a_member_that_is_gone_is_named() -> None:
    with Btf() as btf, pytest.raises(MkwriteError, match="struct vm_fault has no member vm_colour"):
        btf.field("vm_fault", "vm_colour")


def test_a_kernel_without_btf_is_told_so(tmp_path: Path) -> None:
    for content in (None, b"", b"garbage" * 100):
        blob = tmp_path / "btf"
        if content is not None:
            blob.write_bytes(content)
        with pytest.raises(MkwriteError) as refusal:
            Btf(blob)
        assert refusal.value.code is Exit.NO_BTF


def test_the_text_to_compile_names_every_file() -> None:
    source = text("/* layout */\n", Backend.FENTRY)
    assert all(f'#line 1 "{name}"' in source for name in FILES)
    assert "#define FENTRY\n" in source
