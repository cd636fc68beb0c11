"""Architectures of MACE networks as plain JSON, and networks built from them: no pickle, nothing but known classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aldriver.core.errors import InputError
from aldriver.potentials.mace_library import mace_library

INTERACTIONS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)
READOUTS = ("LinearReadoutBlock", "NonLinearReadoutBlock", "NonLinearBiasReadoutBlock")
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
    "abs": torch.abs,
}
KINDS = {
    "r_max": "number",
    "num_bessel": "integer",
    "num_polynomial_cutoff": "integer",
    "max_ell": "integer",
    "interaction_cls": "interaction",
    "interaction_cls_first": "interaction",
    "num_interactions": "integer",
    "hidden_irreps": "irreps",
    "edge_irreps": "irreps",
    "MLP_irreps": "irreps",
    "gate": "gate",
    "readout_cls": "readout",
    "avg_num_neighbors": "number",
    "atomic_numbers": "integers",
    "correlation": "integer",
    "radial_type": "text",
    "distance_transform": "text",
    "radial_MLP": "integers",
    "pair_repulsion": "flag",
    "apply_cutoff": "flag",
    "use_reduced_cg": "flag",
    "use_so3": "flag",
    "use_edge_irreps_first": "flag",
    "use_agnostic_product": "flag",
    "use_last_readout_only": "flag",
    "heads": "texts",
}
"""Arguments of ``ScaleShiftMACE`` an architecture may hold, and what each must be. Reference energies, scale and shift
are with the weights."""

E0, SCALE, SHIFT = "atomic_energies_fn.atomic_energies", "scale_shift.scale", "scale_shift.shift"


def arch_of(module: nn.Module) -> dict[str, Any]:
    """Architecture of a network made by mace.

    Raises
    ------
    InputError
        When it is no plain ScaleShiftMACE, or has parts this version does not know.
    """
    kind = type(module).__name__
    if kind != "ScaleShiftMACE":
        raise InputError(
            f"a MACE model of class {kind} cannot be used, only ScaleShiftMACE (what mace_run_train makes by default, "
            "and all MACE foundation models for energies)"
        )
    with mace_library():
        from mace.tools.scripts_utils import extract_config_mace_model

        config = extract_config_mace_model(module)
    if "error" in config:
        raise InputError(f"mace cannot describe this model: {config['error']}")
    if config.get("embedding_specs"):
        raise InputError(
            f"this MACE model needs {', '.join(config['embedding_specs'])} of every frame, which is not supported"
        )
    if getattr(config.get("cueq_config"), "enabled", False):
        raise InputError("this MACE model was converted for cuequivariance; give the model as mace_run_train wrote it")
    return {key: _encoded(key, config[key]) for key in KINDS if key in config}


def build_module(
    arch: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    scripted: bool = False,
    only_references: bool = False,
) -> nn.Module:
    """A ScaleShiftMACE in double precision.

    Parameters
    ----------
    arch
        As :func:`arch_of` gives it.
    state
        All weights; or at least :data:`E0`, :data:`SCALE` and :data:`SHIFT` with `only_references`, the others are then
        drawn from torch's random numbers.
    scripted
        As mace itself builds it (see ``mace_library``).

    Raises
    ------
    InputError
        When the architecture is not understood.
    RuntimeError
        When the weights do not fit.
    """
    arguments = {key: _decoded(key, value) for key, value in arch.items()}
    missing = sorted({"r_max", "atomic_numbers", "hidden_irreps", "heads"} - set(arguments))
    if missing:
        raise InputError(f"the architecture of this MACE model lacks {', '.join(missing)}")
    with mace_library(dtype=torch.float64, scripted=scripted):
        from mace.modules import ScaleShiftMACE

        references: dict[str, Any] = {
            "atomic_energies": state[E0].double().cpu().numpy(),
            "atomic_inter_scale": state[SCALE].double().cpu().numpy(),
            "atomic_inter_shift": state[SHIFT].double().cpu().numpy(),
        }
        module: nn.Module = ScaleShiftMACE(num_elements=len(arguments["atomic_numbers"]), **references, **arguments)
    if not scripted:
        _make_copyable(module)
    if not only_references:
        module.load_state_dict(state)
    return module


def _make_copyable(module: nn.Module) -> None:
    """What e3nn scripts before every copy, and weights of paths that are zero by symmetry, as ordinary parts."""
    for part in module.modules():
        part.__dict__.pop("__codegen__", None)
        for name, weight in part.named_parameters(recurse=False):
            if type(weight) is not nn.Parameter:
                part._parameters[name] = nn.Parameter(weight.detach().clone())


def _encoded(key: str, value: Any) -> Any:
    kind = KINDS[key]
    if value is None:
        return None
    if kind in ("interaction", "readout", "gate"):
        return _known(key, value.__name__)
    if kind == "irreps":
        return str(value)
    if kind == "integers":
        return [int(v) for v in value]
    if kind == "texts":
        return [str(v) for v in value]
    return {"number": float, "integer": int, "text": str, "flag": bool}[kind](value)


def _decoded(key: str, value: Any) -> Any:
    if key not in KINDS:
        raise InputError(f"the architecture of this MACE model holds '{key}', which this version does not know")
    kind = KINDS[key]
    if value is None:
        return None
    if kind == "gate":
        return GATES[_known(key, value)]
    with mace_library():
        from e3nn import o3
        from mace import modules

        if kind in ("interaction", "readout"):
            return getattr(modules, _known(key, value))
        if kind == "irreps":
            return o3.Irreps(value)
    return _encoded(key, value)


def _known(key: str, name: Any) -> str:
    allowed = {"interaction": INTERACTIONS, "readout": READOUTS, "gate": tuple(GATES)}[KINDS[key]]
    if name not in allowed:
        raise InputError(f"MACE models with {key} = {name!r} are not supported; there is {', '.join(allowed)}")
    return str(name)
