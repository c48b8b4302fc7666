"""Made-up sessions are those of the unit tests."""

from __future__ import annotations

import sys

from .panels import ROOT

sys.path.insert(0, str(ROOT / "tests" / "unit"))
