"""Tests that need a kernel which can be traced: they run inside a guest, see ``run``."""
