#!/usr/bin/env python
"""MD in LAMMPS with any potential aldriver loads: python run_fix_external.py STRUCTURE --potential chgnet:0.3.0

Runs ``in.external`` (or any input with a ``fix ID all external pf/callback``, see --input) and attaches the potential.
"""

from __future__ import annotations

from pathlib import Path

from aldriver.export.driver import main

if __name__ == "__main__":
    raise SystemExit(main(default_input=Path(__file__).resolve().parent / "in.external"))
