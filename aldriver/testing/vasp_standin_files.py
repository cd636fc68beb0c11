"""The files that the stand-in of VASP writes, in the form of VASP 5.4 and 6: vasprun.xml, OUTCAR, OSZICAR, CONTCAR.

Each names the stand-in where VASP names itself. What stands in them is computed by ``vasp_standin.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix

PROGRAM = "aldriver-stand-in"
_DEFAULTS: dict[str, Any] = {
    "ENMAX": 520.0, "EDIFF": 1e-4, "ISMEAR": 1, "SIGMA": 0.2, "ISPIN": 1, "NELM": 60, "NSW": 0, "IBRION": -1, "ISIF": 2,
    "PSTRESS": 0.0, "LREAL": False, "LDAU": False, "PREC": "medium", "ALGO": "Normal", "ISYM": 2,
    "LORBIT": 0, "METAGGA": "--", "GGA": "--",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is written: eV, eV/Å and eV/Å³ (Voigt, ASE sign); `entropy` is T·S, `n_scf` the electronic steps."""

    atoms: Atoms
    incar: dict[str, Any]
    grid: tuple[int, int, int]
    potcars: list[str]
    free_energy: float
    entropy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    moments: NDArray[np.float64] | None
    n_scf: int
    converged: bool
    version: str
    calculator: str

    @property
    def energies(self) -> tuple[float, float, float]:
        """F, E without entropy, E(σ→0)."""
        return self.free_energy, self.free_energy + self.entropy, self.free_energy + 0.5 * self.entropy

    @property
    def kbar(self) -> NDArray[np.float64]:
        """Stress as VASP writes it: 3×3, kbar, compression positive."""
        return np.asarray(-voigt_to_matrix(self.stress) * EV_A3_TO_GPA * 10)

    @property
    def species(self) -> list[str]:
        """Elements in the order of the POSCAR."""
        return list(dict.fromkeys(self.atoms.get_chemical_symbols()))

    @property
    def used(self) -> dict[str, Any]:
        """All tags as used."""
        tags = _DEFAULTS | self.incar
        return tags | {"ENMAX": float(tags.get("ENCUT", tags["ENMAX"]))}

    def scf(self) -> list[float]:
        """Free energy of each electronic step; the last one is the result, the changes shrink if it converged."""
        steps = np.arange(self.n_scf - 1, -1, -1)
        noise = 10.0 ** (1 - steps[::-1]) if self.converged else 0.5 * (-1.0) ** steps
        noise[-1] = 0.0
        if self.converged and self.n_scf > 1:
            noise[-2] = min(noise[-2], 0.3 * float(self.used["EDIFF"]))
        return [self.free_energy + float(x) for x in noise]


def vasprun(r: Result) -> str:
    """The vasprun.xml."""
    return "\n".join(
        [
            '<?xml version="1.0" encoding="ISO-8859-1"?>',
            "<modeling>",
            " <generator>",
            f'  <i name="program" type="string">{PROGRAM} </i>',
            f'  <i name="version" type="string">{r.version}  </i>',
            f'  <i name="subversion" type="string">not VASP: energies of {r.calculator} </i>',
            '  <i name="platform" type="string">none </i>',
            '  <i name="date" type="string">2026 01 01 </i>',
            '  <i name="time" type="string">00:00:00 </i>',
            " </generator>",
            " <incar>",
            *(_tag(k, v) for k, v in r.incar.items()),
            " </incar>",
            *_kpoints(r),
            " <parameters>",
            '  <separator name="electronic" >',
            *(_tag(k, v) for k, v in r.used.items() if k != "ENCUT"),
            "  </separator>",
            " </parameters>",
            *_atominfo(r),
            *_structure(r.atoms, "initialpos"),
            *_calculation(r),
            *_structure(r.atoms, "finalpos"),
            "</modeling>",
            "",
        ]
    )


def _tag(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f'  <v name="{name}">{"".join(f"{float(x):16.8f}" for x in value)}</v>'
    if isinstance(value, bool):
        return f'  <i type="logical" name="{name}"> {"T" if value else "F"}  </i>'
    if isinstance(value, int):
        return f'  <i type="int" name="{name}">{value:6d}</i>'
    if isinstance(value, float):
        return f'  <i name="{name}">{value:16.8f}</i>'
    return f'  <i type="string" name="{name}">{value}</i>'


def _kpoints(r: Result) -> list[str]:
    n1, n2, n3 = r.grid
    points = [(i / n1, j / n2, k / n3) for k in range(n3) for j in range(n2) for i in range(n1)]
    rows = [f"   <v>{a:16.8f} {b:16.8f} {c:16.8f} </v>" for a, b, c in points]
    weights = [f"   <v>{1 / len(points):16.8f} </v>"] * len(points)
    return [
        " <kpoints>",
        '  <generation param="Gamma">',
        f'   <v type="int" name="divisions">{n1:8d} {n2:8d} {n3:8d} </v>',
        '   <v name="usershift">      0.00000000       0.00000000       0.00000000 </v>',
        "  </generation>",
        '  <varray name="kpointlist" >',
        *rows,
        "  </varray>",
        '  <varray name="weights" >',
        *weights,
        "  </varray>",
        " </kpoints>",
    ]


def _atominfo(r: Result) -> list[str]:
    symbols = r.atoms.get_chemical_symbols()
    kinds = {s: i for i, s in enumerate(r.species, start=1)}
    lines = [" <atominfo>", f"  <atoms> {len(symbols):7d} </atoms>", f"  <types> {len(kinds):7d} </types>"]
    lines += ['  <array name="atoms" >', '   <dimension dim="1">ion</dimension>']
    lines += ['   <field type="string">element</field>', '   <field type="int">atomtype</field>', "   <set>"]
    lines += [f"    <rc><c>{s:2s}</c><c>{kinds[s]:4d}</c></rc>" for s in symbols]
    lines += ["   </set>", "  </array>", '  <array name="atomtypes" >', '   <dimension dim="1">type</dimension>']
    lines += ['   <field type="int">atomspertype</field>', '   <field type="string">element</field>']
    lines += ["   <field>mass</field>", "   <field>valence</field>", '   <field type="string">pseudopotential</field>']
    lines.append("   <set>")
    for symbol, titel in zip(r.species, r.potcars, strict=True):
        mass = atomic_masses[atomic_numbers[symbol]]
        lines.append(
            f"    <rc><c>{symbols.count(symbol):4d}</c><c>{symbol:2s}</c><c>{mass:16.8f}</c>"
            f"<c>{8:16.8f}</c><c>  {titel:40s}</c></rc>"
        )
    return [*lines, "   </set>", "  </array>", " </atominfo>"]


def _structure(atoms: Atoms, name: str = "") -> list[str]:
    cell = np.asarray(atoms.cell)
    lines = [f' <structure name="{name}" >' if name else " <structure>", "  <crystal>", '   <varray name="basis" >']
    lines += [f"    <v>{_row(row)} </v>" for row in cell]
    lines += ["   </varray>", f'   <i name="volume">{atoms.get_volume():16.8f} </i>', '   <varray name="rec_basis" >']
    lines += [f"    <v>{_row(row)} </v>" for row in np.asarray(atoms.cell.reciprocal())]
    lines += ["   </varray>", "  </crystal>", '  <varray name="positions" >']
    lines += [f"   <v>{_row(row)} </v>" for row in atoms.get_scaled_positions(wrap=True)]
    return [*lines, "  </varray>", " </structure>"]


def _calculation(r: Result) -> list[str]:
    lines = [" <calculation>"]
    f, wo, zero = r.energies
    for energy in r.scf():
        shift = energy - f
        lines += ["  <scstep>", "   <energy>", *_energies(f + shift, wo + shift, zero + shift), "   </energy>"]
        lines += ["  </scstep>"]
    lines += _structure(r.atoms)
    lines += ['  <varray name="forces" >', *(f"   <v>{_row(row)} </v>" for row in r.forces), "  </varray>"]
    lines += ['  <varray name="stress" >', *(f"   <v>{_row(row)} </v>" for row in r.kbar), "  </varray>"]
    # VASP 5 writes the final energies into the wrong fields
    final = (f, zero, 0.0) if r.version.startswith("5") else (f, wo, zero)
    return [*lines, "  <energy>", *_energies(*final), "  </energy>", " </calculation>"]


def _energies(free: float, without: float, zero: float) -> list[str]:
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    return [f'    <i name="{n}">{x:16.8f} </i>' for n, x in zip(names, (free, without, zero), strict=True)]


def _row(values: NDArray[np.float64]) -> str:
    return " ".join(f"{x:16.8f}" for x in values)


def outcar(r: Result) -> str:
    """The OUTCAR."""
    used, atoms = r.used, r.atoms
    symbols = atoms.get_chemical_symbols()
    n_k = int(np.prod(r.grid))
    lines = [
        f" vasp.{PROGRAM}-{r.version} (not VASP: energies of {r.calculator}) complex",
        " executed on                none date 2026.01.01  00:00:00",
        " running on    1 total cores",
        "",
    ]
    for symbol, titel in zip(r.species, r.potcars, strict=True):
        lines += [f" POTCAR:    {titel}", f"   VRHFIN ={symbol}: none", f"   TITEL  = {titel}"]
    lines += [
        f"   ions per type =    {''.join(f'{symbols.count(s):5d}' for s in r.species)}",
        "",
        f"   k-points           NKPTS = {n_k:6d}   k-points in BZ     NKDIM = {n_k:6d}   number of bands NBANDS=  16",
        f"   number of dos      NEDOS =    301   number of ions     NIONS = {len(symbols):6d}",
        "   dimension x,y,z NGX =    24 NGY =   24 NGZ =   24",
        "   total plane-waves  NPLWV =  13824",
        f"   ISPIN  = {used['ISPIN']:6d}    spin polarized calculation?",
        f"   ENCUT  = {used['ENMAX']:6.1f} eV  38.22 Ry    6.18 a.u.",
        f"   NELM   = {used['NELM']:6d};   NELMIN=  2; NELMDL=  0     # of ELM steps",
        f"   EDIFF  = {used['EDIFF']:.1E}   stopping-criterion for ELM",
        f"   LREAL  = {'T' if used['LREAL'] else 'F':>6s}    real-space projection",
        f"   NSW    = {used['NSW']:6d}    number of steps for IOM",
        f"   IBRION = {used['IBRION']:6d}    ionic relax: 0-MD 1-quasi-New 2-CG",
        f"   ISIF   = {used['ISIF']:6d}    stress and relaxation",
        f"   PSTRESS= {used['PSTRESS']:6.1f} pullay stress",
        f"   ISMEAR = {used['ISMEAR']:5d};   SIGMA  = {used['SIGMA']:6.2f}  broadening in eV -4-tet -1-fermi 0-gaus",
        "      direct lattice vectors                 reciprocal lattice vectors",
        *_lattice(atoms),
        "",
    ]
    for i, energy in enumerate(r.scf(), start=1):
        lines += [f"{'-' * 38} Iteration {1:6d}({i:4d})  {'-' * 39}", ""]
        lines += [f"  free energy    TOTEN  = {energy:18.8f} eV", ""]
    if r.converged:
        lines += [f"{'-' * 24} aborting loop because EDIFF is reached {'-' * 40}", ""]
    return "\n".join([*lines, *_ending(r), ""])


def _lattice(atoms: Atoms) -> list[str]:
    pairs = zip(np.asarray(atoms.cell), np.asarray(atoms.cell.reciprocal()), strict=True)
    return ["".join(f"{x:13.9f}" for x in (*a, *b)) for a, b in pairs]


def _ending(r: Result) -> list[str]:
    f, wo, zero = r.energies
    s = r.kbar
    table = [f"{_short(x)}     {_force(y)}" for x, y in zip(r.atoms.positions, r.forces, strict=True)]
    rule = " " + "-" * 83
    lines = []
    if r.moments is not None:
        lines += [f" number of electron      16.0000000 magnetization {r.moments.sum():15.7f}", ""]
        lines += [" magnetization (x)", "", "# of ion       s       p       d       tot", "-" * 42]
        lines += [f"{i:5d}    {0.0:8.3f}{0.0:8.3f}{m:8.3f}{m:8.3f}" for i, m in enumerate(r.moments, start=1)]
        lines += ["-" * 50, f"tot      {0.0:8.3f}{0.0:8.3f}{r.moments.sum():8.3f}{r.moments.sum():8.3f}", ""]
    kbar = (s[0, 0], s[1, 1], s[2, 2], s[0, 1], s[1, 2], s[0, 2])
    lines += ["  in kB  " + "".join(f"{x:12.5f}" for x in kbar)]
    lines += [f"  external pressure = {np.trace(s) / 3:12.2f} kB  Pullay stress =        0.00 kB", ""]
    lines += ["      direct lattice vectors                 reciprocal lattice vectors", *_lattice(r.atoms), ""]
    lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", rule, *table, rule]
    lines += [f"    total drift:                  {_force(r.forces.sum(axis=0))}", ""]
    lines += ["  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + "-" * 51]
    lines += [f"  free  energy   TOTEN  = {f:18.8f} eV", ""]
    lines += [f"  energy  without entropy={wo:18.8f}  energy(sigma->0) ={zero:18.8f}", ""]
    lines += [" General timing and accounting informations for this job:", " " + "=" * 56, ""]
    return [*lines, "                  Total CPU time used (sec):        1.000", ""]


def _short(values: NDArray[np.float64]) -> str:
    return "".join(f"{x:13.5f}" for x in values)


def _force(values: NDArray[np.float64]) -> str:
    return "".join(f"{x:14.6f}" for x in values)


def oszicar(r: Result) -> str:
    """The OSZICAR (also the standard output)."""
    lines = ["       N       E                     dE             d eps       ncg     rms          rms(c)"]
    before = 0.0
    for i, energy in enumerate(r.scf(), start=1):
        change = energy - before
        numbers = f"{energy:20.12E}  {change:12.5E}  {change:12.5E}   100   {abs(change) / 10:9.3E}"
        lines.append(f"DAV: {i:3d}    {numbers}    0.100E+00")
        before = energy
    f, _, zero = r.energies
    return "\n".join([*lines, f"   1 F= {f:15.8E} E0= {zero:15.8E}  d E ={f - zero:14.6E}", ""])


def contcar(r: Result) -> str:
    """The CONTCAR."""
    symbols = r.atoms.get_chemical_symbols()
    lines = [f"written by the {PROGRAM}, not by VASP", "   1.00000000000000"]
    lines += ["  " + "".join(f"{x:22.16f}" for x in row) for row in np.asarray(r.atoms.cell)]
    lines += ["   " + "   ".join(r.species), "   " + "   ".join(str(symbols.count(s)) for s in r.species), "Direct"]
    lines += ["".join(f"{x:20.16f}" for x in row) for row in r.atoms.get_scaled_positions(wrap=True)]
    return "\n".join([*lines, ""])
