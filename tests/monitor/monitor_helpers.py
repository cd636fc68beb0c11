"""Frames and dumps for tests of the monitor."""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk


def shaken(amplitude: float, seed: int, repeat: int = 2) -> Atoms:
    """bcc Fe, displaced by normal deviates of `amplitude`, Å."""
    atoms = bulk("Fe", "bcc", a=2.855, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def walk(n: int, *, wild: tuple[int, ...] = ()) -> list[Atoms]:
    """A trajectory of calm frames; those in `wild` are far from anything known."""
    return [shaken(0.5 if k in wild else 0.05, seed=k) for k in range(n)]


def dump_text(frames, *, columns="id type x y z", first=0, every=10, head="", order=None) -> bytes:
    """Frames of orthogonal cells as LAMMPS writes them, 12 significant digits."""
    out = []
    for k, atoms in enumerate(frames):
        lengths = atoms.cell.lengths()
        out.append(f"{head}ITEM: TIMESTEP\n{first + every * k}\nITEM: NUMBER OF ATOMS\n{len(atoms)}")
        out.append("ITEM: BOX BOUNDS pp pp pp")
        out += [f"0 {length:.12g}" for length in lengths]
        out.append(f"ITEM: ATOMS {columns}")
        rows = range(len(atoms)) if order is None else order
        for i in rows:
            x, y, z = atoms.positions[i]
            values = {"id": i + 1, "type": 1, "element": atoms.symbols[i]}
            values |= {"x": f"{x:.12g}", "y": f"{y:.12g}", "z": f"{z:.12g}"}
            values |= {f"{a}s": f"{v:.12g}" for a, v in zip("xyz", atoms.positions[i] / lengths, strict=True)}
            out.append(" ".join(str(values[name]) for name in columns.split()))
    return ("\n".join(out) + "\n").encode()
