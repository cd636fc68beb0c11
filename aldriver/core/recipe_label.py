"""The ``label`` block of the recipe: who labels frames, how, and how many; one section for each engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from aldriver.core.presets import LABELS
from aldriver.core.recipe_engines import GRID, SPACING, VERSION, Ase, Cp2k, Gpaw, Grid
from aldriver.core.section import Element, Positive, Section


class Espresso(Section):
    """Quantum ESPRESSO settings of a label."""

    command: str = "pw.x"
    version: str | None = Field(default=None, description=VERSION.format(example="7.2", hash="a hash of the binary"))
    pseudo_dir: Path = Path("/usr/share/espresso/pseudo")
    pseudopotentials: dict[Element, str]
    ecutwfc_Ry: Positive
    ecutrho_Ry: Positive | None = None
    kpoints: Grid | None = Field(default=None, description=GRID)
    kspacing_per_A: Positive | None = Field(default=None, description=SPACING)
    smearing: Literal["none", "gaussian", "marzari-vanderbilt", "methfessel-paxton", "fermi-dirac"] = "gaussian"
    degauss_Ry: Positive = 0.01
    conv_thr_Ry: Positive = 1e-8
    spin: bool = False
    starting_magnetization: dict[Element, Annotated[float, Field(ge=-1, le=1)]] = Field(default_factory=dict)
    starting_moments_muB: dict[Element, float] = Field(
        default_factory=dict, description="element: starting moment, instead of `starting_magnetization`"
    )
    max_scf_steps: int = Field(default=100, ge=1)


_FORBIDDEN_TAGS = {
    "PSTRESS": "it adds p·V to the energies and shifts the stress",
    "NSW": "a label is one ionic step",
    "IBRION": "a label is one ionic step",
    "ISIF": "a label needs the whole stress tensor (ISIF 2)",
    "ISPIN": "use label.vasp.spin",
    "MAGMOM": "use label.vasp.magmoms (by element)",
    "LDAU": "use label.vasp.hubbard_u_eV",
    "LDAUU": "use label.vasp.hubbard_u_eV",
    "LDAUJ": "use label.vasp.hubbard_u_eV",
    "LDAUL": "use label.vasp.hubbard_u_eV",
    "KSPACING": "use label.vasp.kpoints or label.vasp.kspacing_per_A",
    "ENCUT": "use label.vasp.encut_eV",
    "EDIFF": "use label.vasp.ediff_eV",
    "ISMEAR": "use label.vasp.smearing (tetrahedra, −5, give wrong forces in metals and are not offered)",
    "SIGMA": "use label.vasp.sigma_eV",
    "NELM": "use label.vasp.max_scf_steps",
    "ICHARG": "every label finds its own charge density",
}


class Vasp(Section):
    """VASP settings of a label (pymatgen's MP static set with aldriver's overrides)."""

    command: str = Field(default="vasp_std", description="with its launcher, e.g. srun vasp_std")
    version: str | None = Field(default=None, description=VERSION.format(example="6.4.2", hash="a hash of the binary"))
    potcars: dict[Element, str] = Field(
        default_factory=dict, description="POTCAR of each element; the choice decides the number of valence electrons"
    )
    potcar_functional: str = Field(default="PBE", description="pymatgen's name of the library, e.g. PBE_54")
    encut_eV: Positive = 520.0
    ediff_eV: Positive = 1e-6
    smearing: Literal["gaussian", "methfessel-paxton", "fermi-dirac"] = "gaussian"
    sigma_eV: Positive = 0.05
    kpoints: tuple[int, int, int] | None = Field(default=None, description="Γ-centred grid, frozen for the campaign")
    kspacing_per_A: Positive | None = Field(
        default=None,
        description="points at most this far apart (2π included): the limit for a frozen grid, or what makes the grid",
    )
    spin: bool = True
    magmoms: dict[Element, float] = Field(
        default_factory=dict, description="starting moments of every label, µB (others: pymatgen's MP defaults)"
    )
    hubbard_u_eV: dict[Element, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="U − J of Dudarev's PBE+U; empty: no U, whatever the elements"
    )
    incar: dict[str, Any] = Field(
        default_factory=dict, description="further INCAR tags; those that have a key here or spoil labels are refused"
    )
    max_scf_steps: int = Field(default=100, ge=1)
    corrections: int = Field(default=3, ge=0, le=10, description="changes of the electronic algorithm, at most")
    silence_s: Positive = Field(default=3600.0, description="a run that writes nothing for so long hangs")

    @model_validator(mode="after")
    def _consistent(self) -> Vasp:
        for tag, reason in _FORBIDDEN_TAGS.items():
            if tag in {key.upper() for key in self.incar}:
                raise ValueError(f"incar.{tag} is not allowed: {reason}")
        if self.kpoints is None and self.kspacing_per_A is None:
            raise ValueError("give kpoints (a frozen grid), kspacing_per_A, or both")
        return self


class LabelLimits(Section):
    """What a label must keep to; one that does not is ``rejected`` with the reason, and never trained on."""

    max_force_eV_A: Positive = Field(default=100.0, description="largest force on an atom")
    max_net_force_eV_A: Positive = Field(default=0.05, description="largest |ΣF| / √N: low cutoffs and grids show here")
    max_stress_GPa: Positive = Field(default=2000.0, description="largest stress component")
    need_stress: bool = Field(default=False, description="refuse labels without stress (else they have weight 0 there)")
    moments: dict[Element, tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]] = Field(
        default_factory=dict,
        description="element: least and greatest mean |moment|, µB: the spin state of the campaign",
    )
    second_start: dict[Element, float] = Field(
        default_factory=dict,
        description="element: starting moment (the engine's own unit) of one more run of a frame outside `moments`",
    )
    energies_eV: dict[Element, float] = Field(
        default_factory=dict,
        description="element: its energy in the campaign's reference; empty = fitted to the labels there are",
    )
    max_offset_eV_atom: Positive = Field(default=2.0, description="largest distance of an energy from the reference")

    @model_validator(mode="after")
    def _windows(self) -> LabelLimits:
        for element, (least, greatest) in self.moments.items():
            if least > greatest:
                raise ValueError(f"moments of {element}: the least ({least:g}) is larger than the greatest")
        if set(self.second_start) - set(self.moments):
            raise ValueError("second_start names an element that `moments` does not: nothing would ask for it")
        return self


class Label(Section):
    """Who labels frames, and how many."""

    preset: str | None = Field(
        default=None,
        description="settings to start from (`recipes/labels`, or a file); keys given here come before them",
    )
    engine: Literal["calculator", "espresso", "vasp", "gpaw", "cp2k", "ase"]
    reference: str | None = Field(default=None, description="calculator only: a potential such as eam:Fe_mm.eam.fs")
    espresso: Espresso | None = None
    vasp: Vasp | None = None
    gpaw: Gpaw | None = Field(default=None, description="settings for engine `gpaw`")
    cp2k: Cp2k | None = Field(default=None, description="settings for engine `cp2k`")
    ase: Ase | None = Field(default=None, description="settings for engine `ase`: any ASE calculator")
    budget: int = Field(default=20, ge=1, description="labels per generation")
    audit: int = Field(default=2, ge=0, description="labels of the budget taken at random below the threshold")
    fill: bool = Field(default=False, description="spend what is left of the budget on the most novel frames below it")
    seeds: bool = Field(
        default=True, description="the first labels go to the undisturbed start cells: each system at each strain"
    )
    core_hours: Positive | None = Field(default=None, description="expected cost of a generation's labels, at most")
    most_per_walker: int | None = Field(default=None, ge=1, description="labels of a generation one walker may get")
    most_per_elements: int | None = Field(
        default=None, ge=1, description="labels of a generation that frames of one set of elements may get"
    )
    silence: int | None = Field(
        default=5, ge=1, description="generations without a label after which a walker or a set of elements is owed one"
    )
    timeout_s: Positive = 3600.0
    retries: int = Field(default=2, ge=0, le=10, description="retries after a crash (same input)")
    corrections: int = Field(
        default=2,
        ge=0,
        le=5,
        description="further attempts at an SCF that does not converge, each with a recorded change of the way there "
        "(mixing, diagonalisation), never of the physics",
    )
    pack: int = Field(default=1, ge=1, le=1000, description="labels of one task (one queue job)")
    at_once: int = Field(
        default=1, ge=1, le=256, description="labels of a task that run side by side, in processes of their own"
    )
    limits: LabelLimits = Field(default=LabelLimits(), description="what a label must keep to, or be `rejected`")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return LABELS.complete(data) if isinstance(data, Mapping) and data.get("preset") else data

    @model_validator(mode="after")
    def _settings(self) -> Label:
        needed = "reference" if self.engine == "calculator" else self.engine
        if getattr(self, needed) is None:
            raise ValueError(f"engine '{self.engine}' needs the block or key `{needed}`")
        if self.at_once > 1 and self.engine == "calculator":
            raise ValueError("at_once: engine 'calculator' labels in one process, one frame after the other")
        if self.at_once > self.pack:
            raise ValueError(f"at_once ({self.at_once}) is larger than pack ({self.pack}), the labels of one task")
        if self.audit > self.budget:
            raise ValueError(f"audit ({self.audit}) is larger than the budget ({self.budget})")
        return self
