"""The tests of ``tests/sevennet_env``, run in the Python that has sevenn."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = "tests/potentials/test_bundle_safety.py"
"""Its cases of SevenNet are skipped where sevenn is not installed."""
FILES = sorted(p.name for p in (ROOT / "tests" / "sevennet_env").glob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_in_its_own_environment(name, sevennet_python):
    command = [sevennet_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/sevennet_env/{name}"]
    command += [BUNDLES, "-k", "sevennet"] if name == "test_sevennet_vendor.py" else []
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=600)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
