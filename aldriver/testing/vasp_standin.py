"""A stand-in for VASP: ``python -m aldriver.testing.vasp_standin --calculator emt`` in place of ``vasp_std``.

It reads INCAR, KPOINTS and POSCAR of the folder it runs in and writes vasprun.xml, OUTCAR, OSZICAR and CONTCAR in the
form of VASP, with the energy, forces and stress of an ASE calculator or an aldriver potential. So everything around
VASP can be tried and tested without it. It is not VASP: its files name another program, and labels made from them say
``stand_in``. It can also fail the ways VASP does (``--fault``). The form of the files is ``vasp_standin_files.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.vasp import read_vasp

from aldriver.testing.vasp_standin_files import Result, contcar, oszicar, outcar, vasprun

FAULTS = (
    "ok",
    "unconverged",
    "unconverged_once",
    "truncated",
    "crash",
    "crash_once",
    "hang",
    "garbage",
    "disk_full",
)
_SCF_STEPS = 9
_ENTROPY_EV = 2e-4
"""T·S per atom that it pretends, so that E(σ→0) and the free energy are not the same number."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is VASP's (0 also when the electrons did not converge)."""
    parser = argparse.ArgumentParser(prog="vasp_standin", description=__doc__)
    parser.add_argument("--calculator", default="emt", help="emt, or a potential such as eam:Fe_mm.eam.fs")
    parser.add_argument("--fault", choices=FAULTS, default="ok", help="fail in this way")
    parser.add_argument("--faults", type=Path, help="JSON: what to do for the frames whose id stands in the POSCAR")
    parser.add_argument("--version", default="6.4.2", help="VASP version to write like (5.* writes its wrong energy)")
    parser.add_argument("--seconds", type=float, default=0.0, help="take so long")
    args = parser.parse_args(argv)
    incar = read_incar(Path("INCAR").read_text())
    atoms = read_vasp("POSCAR")
    fault = args.fault
    if args.faults is not None:
        comment = Path("POSCAR").read_text().splitlines()[0].split()
        fault = next((f for k, f in json.loads(args.faults.read_text()).items() if k in comment), fault)
    print(" running the aldriver stand-in, which is not VASP", flush=True)
    result = _compute(atoms, incar, args, converged=_converges(fault, incar))
    time.sleep(args.seconds)
    return _write(result, fault)


def _converges(fault: str, incar: dict[str, Any]) -> bool:
    fast = str(incar.get("ALGO", "Normal")).upper().startswith(("F", "V"))
    return not (fault == "unconverged" or (fault == "unconverged_once" and fast))


def _compute(atoms: Atoms, incar: dict[str, Any], args: argparse.Namespace, *, converged: bool) -> Result:
    energy, forces, stress = _evaluate(atoms, args.calculator)
    n_max = int(incar.get("NELM", 60))
    moments = np.atleast_1d(np.asarray(incar.get("MAGMOM", []), dtype=float))
    spin = int(incar.get("ISPIN", 1)) == 2
    if not converged:
        energy += 0.37  # what an unconverged loop says is not the energy
    return Result(
        atoms=atoms,
        incar=incar,
        grid=_grid(Path("KPOINTS").read_text()),
        potcars=_potcars(atoms),
        free_energy=energy,
        entropy=_ENTROPY_EV * len(atoms),
        forces=forces,
        stress=stress,
        moments=moments if spin and len(moments) == len(atoms) else None,
        n_scf=min(_SCF_STEPS, n_max) if converged else n_max,
        converged=converged and n_max > _SCF_STEPS,
        version=args.version,
        calculator=args.calculator,
    )


def _evaluate(atoms: Atoms, name: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (eV), forces (N, 3) and Voigt stress (6,) of the calculator."""
    if name == "emt":
        from ase.calculators.emt import EMT

        atoms.calc = EMT()
        return float(atoms.get_potential_energy()), atoms.get_forces(), atoms.get_stress()
    from aldriver.potentials import load

    found = load(name).evaluate([atoms], stress=True)[0]
    stress = np.zeros(6) if found.stress is None else found.stress
    return float(found.energy), np.asarray(found.forces), np.asarray(stress)


def _write(result: Result, fault: str) -> int:
    """Write the files in the way of a fault; returns the exit status."""
    if fault == "crash_once" and not Path("crashed-before").exists():
        Path("crashed-before").touch()
        fault = "crash"
    xml, text = vasprun(result), outcar(result)
    Path("OSZICAR").write_text(oszicar(result))
    print(oszicar(result), flush=True)
    if fault == "hang":
        while True:
            time.sleep(60)
    if fault in ("crash", "truncated", "disk_full"):
        xml, text = xml[: xml.index("</calculation>")], text[: text.index("General timing")]
    if fault == "garbage":
        noise = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
        Path("vasprun.xml").write_bytes(noise)
        Path("OUTCAR").write_bytes(noise)
        return 0
    Path("vasprun.xml").write_text(xml)
    Path("OUTCAR").write_text(text)
    Path("CONTCAR").write_text(contcar(result))
    if fault == "disk_full":
        print("forrtl: No space left on device", file=sys.stderr, flush=True)
        return 38
    if fault == "crash":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def read_incar(text: str) -> dict[str, Any]:
    """Tags of an INCAR: numbers, lists of numbers (also ``4*0.6``), booleans, words."""
    tags: dict[str, Any] = {}
    for line in text.splitlines():
        for part in line.split("#")[0].split("!")[0].split(";"):
            name, equals, value = part.partition("=")
            if equals:
                tags[name.strip().upper()] = _value(value)
    return tags


def _value(text: str) -> Any:
    values: list[Any] = []
    for word in text.split():
        count, star, number = word.partition("*")
        values += [_word(number)] * int(count) if star and count.isdigit() else [_word(word)]
    return values[0] if len(values) == 1 else values


def _word(word: str) -> Any:
    if word.strip(".").upper() in ("TRUE", "T", "FALSE", "F"):
        return word.strip(".").upper().startswith("T")
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _grid(text: str) -> tuple[int, int, int]:
    a, b, c = (int(w) for w in text.splitlines()[3].split()[:3])
    return a, b, c


def _potcars(atoms: Atoms) -> list[str]:
    """A TITEL for each species, which says that there is none."""
    spec = Path("POTCAR.spec")
    species = list(dict.fromkeys(atoms.get_chemical_symbols()))
    names = spec.read_text().split() if spec.exists() else species
    return [f"PAW_PBE {name} stand-in" for name in names]


if __name__ == "__main__":
    sys.exit(main())
