"""Runs the tests: parts side by side, each a process that ends with its runner (tests/run)."""
