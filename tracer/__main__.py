"""``python -m tracer`` is ``mkwrite``."""

from tracer.cli.main import main

if __name__ == "__main__":
    main()
