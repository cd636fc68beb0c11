"""Numbers, units, reason codes and stages in the words of a materials scientist. Reads no file."""

from __future__ import annotations

import math
from typing import Any

METRICS = {
    "energy_rmse_meV_atom": ("Energy", "meV/atom"),
    "forces_rmse_meV_A": ("Force", "meV/Å"),
    "stress_rmse_GPa": ("Stress", "GPa"),
}
"""Key in an evaluation: name and unit in the report."""

SIGNALS = {
    "soap_q": "SOAP Q-residual",
    "soap_t2": "SOAP T²",
    "feature_q": "Feature Q-residual",
    "feature_t2": "Feature T²",
    "feature_distance": "Feature distance",
    "feature_neighbour": "Distance to the nearest known atom",
    "last_layer": "Last-layer deviation",
    "committee": "Committee spread",
    "score": "Score",
}

PROPERTIES = {
    "lattice_constant": "Lattice constant",
    "bulk_modulus": "Bulk modulus",
    "bulk_modulus_eos": "Bulk modulus (E–V)",
    "eos_volume": "Volume (E–V)",
    "c11": "C₁₁",
    "c12": "C₁₂",
    "c44": "C₄₄",
    "c_prime": "C′",
    "vacancy_formation_energy": "Vacancy formation energy",
    "c_over_a": "c/a",
    "c13": "C₁₃",
    "c33": "C₃₃",
    "phonon": "Phonon frequency",
    "phonon_max_frequency": "Highest phonon frequency",
    "phonon_min_frequency": "Lowest phonon frequency",
    "phonon_mean_frequency": "Mean phonon frequency",
    "qha_lattice_constant": "Lattice constant (QHA)",
    "qha_thermal_expansion": "Thermal expansion (QHA)",
    "qha_heat_capacity": "Heat capacity (QHA)",
    "qha_free_energy": "Free energy (QHA)",
    "liquid_density": "Density of the liquid",
    "rdf_first_peak": "First RDF peak",
    "rdf_first_peak_height": "Height of the first RDF peak",
    "self_diffusion": "Self-diffusion",
    "crystal_stability_limit": "Crystal stable up to",
    "md_thermal_expansion": "Thermal expansion (MD)",
    "md_heat_capacity": "Heat capacity (MD)",
    "vacancy_migration_energy": "Vacancy migration energy",
    "oct_minus_tet": "Octahedral − tetrahedral site",
    "interstitial_migration_energy": "Interstitial migration energy",
    "self_interstitial_energy": "Self-interstitial formation energy",
    "di_interstitial_energy": "Di-interstitial formation energy",
    "magnetic_moment": "Magnetic moment",
    "unstable_fault_energy": "Unstable stacking fault energy",
    "stacking_fault_energy": "Stacking fault energy",
    "fault_energy": "Energy of a fault",
    "max_traction": "Largest traction",
    "cleavage_energy": "Cleavage energy",
    "energy_rmse": "Energy RMSE",
    "energy_mae": "Energy MAE",
    "force_rmse": "Force RMSE",
    "force_mae": "Force MAE",
    "stress_rmse": "Stress RMSE",
    "forgetting_drift": "Drift from the foundation",
    "dissociation_barrier": "Barrier to dissociation",
    "adsorption_energy": "Dissociative adsorption energy",
    "peierls_barrier": "Peierls barrier",
    "md_speed": "Speed of molecular dynamics",
}

REASONS = {
    "completed": "ran to the end",
    "hot": "stopped: temperature above the limit",
    "too_close": "stopped: two atoms came too close",
    "not_finite": "stopped: a number was not finite",
    "energy_jump": "stopped: the potential energy jumped",
    "lost_atoms": "stopped: atoms were lost",
    "force": "stopped: a force above the limit",
    "guard": "stopped by the guard",
    "error": "stopped by an error",
}

DECISIONS = {
    "promote": "promoted",
    "hold": "held, the potential before it stays",
    "rollback": "rolled back",
}

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STAGES = ("reference", "explore", "select", "label", "train", "benchmark", "gate")


def number(value: Any, digits: int = 3) -> str:
    """`digits` significant digits, no exponent for everyday sizes, a real minus sign; ``–`` for no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if magnitude < -4 or magnitude > 6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return mantissa.replace("-", "−") + " × 10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return f"{value:,.{max(digits - 1 - magnitude, 0)}f}".replace("-", "−").replace(",", "\u202f")


def signed(value: float, digits: int = 1) -> str:
    """Fixed decimals with an explicit sign; ``±0.0`` when it rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    sign = "±" if float(text) == 0 else "+" if value > 0 else "−"
    return sign + text


def percent(value: float) -> str:
    """Signed per cent, fewer decimals for large ones."""
    return f"{signed(100 * value, 0 if abs(value) >= 0.995 else 1)} %"


def duration(seconds: Any) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "–"
    if 0 < seconds < 0.01:
        return "< 0.01 s"
    if seconds < 120:
        return f"{number(seconds, 2) if seconds < 10 else round(seconds)} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """``1 label``, ``2 labels``."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def property_name(key: str) -> str:
    """Name of a benchmarked property: ``Binding energy (Cu-Ni,2)``."""
    base, _, variant = key.partition("(")
    name = PROPERTIES.get(base, base.replace("_", " ").capitalize())
    return PROPERTIES.get(key, f"{name} ({variant}" if variant else name)


def unit_name(unit: str) -> str:
    """A unit as it is printed."""
    return {"A": "Å", "angstrom": "Å", "": "no unit"}.get(unit, unit).replace("^3", "³").replace("^2", "²")


def signal_name(key: str) -> str:
    """Name of a detector signal."""
    return SIGNALS.get(key, key.replace("_", " "))


def finite(value: Any) -> float | None:
    """The value as a float, or None when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
