"""The demonstration: see __main__.py."""
