"""Where the JavaScript of these tests is."""

import shutil
from pathlib import Path

import pytest

JS = Path(__file__).parent / "js"
AVAILABLE = shutil.which("node") is not None and (JS / "node_modules").is_dir()
WHY_NOT = "needs Node and its packages: install Node 20 or newer, then run make setup"

needs_node = pytest.mark.skipif(not AVAILABLE, reason=WHY_NOT)
