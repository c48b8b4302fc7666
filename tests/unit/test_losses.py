"""What each kind of loss means: said once in the code and once in the docs, in the same words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import snapshot
from tracer.model.hooks import Loss
from tracer.model.losses import MEANINGS
from tracer.ui.status import status

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLE = DOCS / "metrics.md"
ROW = re.compile(r"^\| `(\w+)`(?:, `\w+`)* \| (.*) \| (.*) \|$", re.MULTILINE)


def test_every_kind_has_a_meaning_and_something_to_do() -> None:
    assert list(MEANINGS) == list(Loss)
    for meaning in MEANINGS.values():
        assert not meaning.missed.endswith(".")
        assert meaning.remedy.endswith(".")


def test_the_docs_say_what_the_code_says() -> None:
    section = TABLE.read_text().partition("\n## mkwrite_lost_total\n")[2].partition("\n## ")[0]
    assert [row.groups() for row in ROW.finditer(section)] == [
        (kind.value, meaning.missed, meaning.remedy) for kind, meaning in MEANINGS.items()
    ]


def test_no_other_page_has_a_table_of_its_own() -> None:
    kinds = {kind.value for kind in Loss}
    pages = [path for path in DOCS.rglob("*.md") if path != TABLE]
    assert pages
    assert [path.name for path in pages if kinds & {row[1] for row in ROW.finditer(path.read_text())}] == []


@pytest.mark.parametrize("kind", Loss)
def test_what_is_lost_is_explained_beside_its_number(kind: Loss) -> None:
    before = snapshot({})
    lines = [line.plain for line in status(replace(before, lost={**before.lost, kind: 3}))]
    untold = "lost: 0, counted but not told one by one: 3 (events_full)"  # what is not told is counted
    assert lines[0].startswith(untold if kind is Loss.EVENTS_FULL else f"lost: 3 ({kind.value} 3)")
    assert lines[1] == f"{kind.value}: {MEANINGS[kind].missed}. {MEANINGS[kind].remedy}"
    assert not any(line.startswith(kind.value) for line in [one.plain for one in status(before)])
