"""A user's look at the host is not root's: it says so, and does not succeed."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.live.guest import command

pytestmark = [pytest.mark.native, pytest.mark.nightly, pytest.mark.here]

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
NOT_ALL_SEEN = 28


@pytest.mark.parametrize("asked", ["stuck --once", "risk --above 80", "maps"])
def test_a_users_look_is_told_to_be_one(asked: str) -> None:
    text = subprocess.run([*AS_NOBODY, *command(*asked.split())], capture_output=True, text=True, check=False)
    assert (text.returncode, "\nnot seen: " in f"\n{text.stdout}") == (NOT_ALL_SEEN, True), text
    data = subprocess.run([*AS_NOBODY, *command(*asked.split(), "--json")], capture_output=True, text=True, check=False)
    assert (data.returncode, len(json.loads(data.stdout)["unseen"])) == (NOT_ALL_SEEN, 1), data
