"""The command line: one command a file, wiring only."""
