"""What the live tests take for growth without end."""

from __future__ import annotations

import random

import pytest

from tests.live.growth import keeps_growing

CHANCE = random.Random(20)


@pytest.mark.parametrize("rounds", [7, 16, 1000])
def test_what_is_leaked_in_each_round_is_found(rounds: int) -> None:
    assert keeps_growing([24_000 + 4 * number for number in range(rounds)])


def test_a_leak_is_found_in_noise_that_is_larger_than_what_a_round_leaks() -> None:
    assert keeps_growing([24_000 + number + CHANCE.randrange(100) for number in range(1000)])


@pytest.mark.parametrize("rounds", [7, 16, 1000])
def test_what_settles_or_comes_and_goes_is_none(rounds: int) -> None:
    assert not keeps_growing([24_000] * rounds)
    assert not keeps_growing([24_000 + 500 * min(number, rounds // 2) for number in range(rounds)])
    assert not keeps_growing([24_000 + 4 * (number // (rounds // 3)) for number in range(rounds)])
    assert not keeps_growing([24_000 + 4096 * (number % 2) for number in range(rounds)])
