"""The wall clock is followed when it is set, and only then."""

from __future__ import annotations

from tracer.decode.clock import WallClock


def test_a_moment_has_the_time_of_the_clock_as_it_is_set_now() -> None:
    real, monotonic = [1_000_000_000_000], [5_000_000_000]
    clock = WallClock(lambda: real[0], lambda: monotonic[0])
    assert clock.at(5_000_000_007) == 1_000_000_000_007
    # Two reads are never at one moment: what differs by less than a step changes nothing.
    monotonic[0] += 999
    assert clock.at(5_000_000_007) == 1_000_000_000_007
    real[0] += 86400 * 10**9
    assert clock.at(5_000_000_007) == 1_000_000_000_007 + 86400 * 10**9 - 999
