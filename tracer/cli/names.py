"""What the program is called."""

from typing import Final

PROGRAM: Final = "mkwrite"
#: The variable by which click's completion scripts ask for completions.
COMPLETE_VAR: Final = "_MKWRITE_COMPLETE"
#: Set to anything but "", it makes internal errors show where they come from.
DEBUG_VAR: Final = "MKWRITE_DEBUG"


def version() -> str:
    """Return the installed version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "unknown"
