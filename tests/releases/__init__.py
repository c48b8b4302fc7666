"""Guests whose userland is another Debian release: its Python, BCC, LLVM and libbpf."""
