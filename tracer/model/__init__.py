"""The vocabulary as types: no I/O, nothing of the kernel or of BCC."""
