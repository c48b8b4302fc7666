"""Tests that need a kernel which can be traced: they run inside a guest, see ``run``."""

import pytest

# For what they assert to be told with its numbers, as what tests assert is.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in ("guest", "hostile", "hung_fuse", "measure", "refusals", "slow_disk", "watched")
    )
)
