"""The numbers that Python and C share: what the programs write in a kind is what is read from it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from itertools import product
from pathlib import Path

from tracer.model.calls import FaultPath, Initiator, Outcome
from tracer.probes.abi import GENERATIONS, RACED, generation_in, header, initiator_of, outcome_of, path_in

_KIND = {
    FaultPath.FIRST_WRITE: "0",
    FaultPath.WRITE_PROTECT: "KIND_WRITE_PROTECT",
    FaultPath.DAX_FAULT: "KIND_DAX_FAULT",
    FaultPath.DAX_HUGE_FAULT: "KIND_DAX_HUGE_FAULT",
    FaultPath.PFN_MKWRITE: "KIND_PFN_MKWRITE",
}


def test_every_kind_that_c_makes_is_read_back(tmp_path: Path) -> None:
    every = list(product(FaultPath, Initiator, Outcome, (0, 1, GENERATIONS)))
    kinds = ", ".join(
        f"KIND_VALID | {_KIND[path]} | KIND_INITIATOR({initiator.name}) | KIND_OUTCOME({outcome.name})"
        f" | KIND_GENERATION({generation}u)"
        for path, initiator, outcome, generation in every
    )
    source, program = tmp_path / "kinds.c", tmp_path / "kinds"
    source.write_text(
        f"{header()}#include <stdio.h>\nunsigned kinds[] = {{{kinds}, KIND_OUTCOME(RACED)}};\n"
        'int main(void) { for (unsigned i = 0; i < sizeof(kinds) / 4; i++) printf("%u\\n", kinds[i]); }\n'
    )
    subprocess.run(["cc", "-w", "-o", program, source], check=True)
    *made, raced = map(int, subprocess.run([program], capture_output=True, check=True).stdout.split())
    found = [(path_in(kind), initiator_of(kind), outcome_of(kind), generation_in(kind) & GENERATIONS) for kind in made]
    assert found == every
    assert raced == RACED


def test_no_name_has_two_numbers() -> None:
    enums = re.findall(r"\w+", " ".join(re.findall(r"{(.*)}", header())))
    names = Counter(enums + re.findall(r"^#define (\w+)", header(), re.MULTILINE))
    assert [name for name, number in names.items() if number > 1] == []
