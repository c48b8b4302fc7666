"""How many pages are written: odd primes, so that nothing comes out right by accident."""

from __future__ import annotations

FIRST, AGAIN, HOLES = 31, 17, 7
