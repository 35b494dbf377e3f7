"""The harness is no part of the installed package: it is found from the root of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: whatever is installed comes first.
sys.path.append(str(Path(__file__).parents[2]))
