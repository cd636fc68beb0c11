"""A user's MACE ``.model`` becomes a safe potential: unpickled once, elsewhere, and only when it is trusted.

A ``.model`` file is a pickle, and opening a pickle runs what its author put into it. :func:`convert_model` therefore
opens it in a short-lived process of its own (``python -m aldriver.potentials.mace_convert``), which writes plain JSON
and safetensors; this process builds the network from those and compares it with what mace's own calculator gave there.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn

from aldriver.core.errors import InputError
from aldriver.core.records import dumps, jsonable
from aldriver.potentials.mace import MACEPotential, chosen_head, largest_differences
from aldriver.potentials.mace_arch import arch_of, build_module
from aldriver.potentials.mace_library import UNSAFE, mace_library, mace_needs

TIMEOUT_S = 900
TOLERANCE = {"energy_meV_atom": 1e-2, "forces_meV_A": 1e-1, "stress_GPa": 1e-3}
"""Between mace's calculator and ours, both in double precision: far above rounding, far below any wrong weight."""
SINGLE = {"energy_meV_atom": 0.5, "forces_meV_A": 5.0, "stress_GPa": 0.05}
"""What single precision may cost."""
ARCH, WEIGHTS, PROBE, REFUSED = "arch.json", "weights.safetensors", "probe.json", "refused.json"


def convert_model(
    path: str | Path, *, trust_pickle: bool, head: str | None = None, dtype: str = "float32"
) -> MACEPotential:
    """Make a potential of a ``.model`` file.

    Parameters
    ----------
    path
        The file; or the name of a MACE foundation model (``small``, ``medium-mpa-0``, …) that mace has downloaded.
    trust_pickle
        Whether code from this file may run (in a process of its own, with this user's rights).
    head
        Of a model with several heads.

    Returns
    -------
    MACEPotential
        With ``origin``: source, its SHA-256, versions, and what single precision costs.

    Raises
    ------
    InputError
        When the file is missing, not trusted, or no energy model; when there is no such head, or none was chosen; or
        when the safe copy does not give the same numbers.
    """
    source = _source(path)
    _refuse_other_files(source)
    if not trust_pickle:
        raise InputError(
            f"{source}: a .model file is a pickle: opening it runs any code its author put into it, with your rights. "
            "If you know where it comes from, opt in: `aldriver convert "
            f"{path} DIRECTORY --trust-pickle` opens it once, in a process of its own, and writes files that hold "
            "nothing but numbers. Nothing of the file has been run so far."
        )
    with tempfile.TemporaryDirectory(prefix="aldriver-mace-") as folder:
        _unpickle_elsewhere(source, Path(folder))
        return _from_files(Path(folder), source, head, dtype)


def _source(path: str | Path) -> Path:
    """The file that is meant; a foundation name stands for what mace has in its cache."""
    source = Path(path)
    if source.is_file():
        return source
    if source.is_dir():
        raise InputError(f"{source}: is a directory; one that aldriver wrote is used as it is (mace:{source})")
    with mace_library():
        from mace.calculators.foundations_models import mace_mp_urls
        from mace.tools.utils import get_cache_dir
    if str(path) not in mace_mp_urls:
        raise InputError(
            f"{path}: there is no such file, and it is not the name of a MACE foundation model "
            f"({', '.join(mace_mp_urls)})"
        )
    url = mace_mp_urls[str(path)]
    cached = Path(get_cache_dir()) / "".join(c for c in url.rpartition("/")[2] if c.isalnum() or c == "_")
    if not cached.is_file():
        raise InputError(
            f"{path}: mace has not downloaded this model ({cached} is missing), and aldriver downloads nothing by "
            f"itself. Fetch {url} and give the file."
        )
    return cached


def _refuse_other_files(source: Path) -> None:
    """What mace writes beside the ``.model``; told apart without running anything."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
        if any("/code/" in name for name in names):
            raise InputError(f"{source}: is compiled TorchScript, for LAMMPS; give the .model file it was made from")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception:  # a pickled model, as it should be, or something else: the other process will tell
        return
    if isinstance(content, dict):
        raise InputError(
            f"{source}: is a checkpoint of a training: weights without the network they belong to. "
            "Give the .model file that mace_run_train writes at its end."
        )


def _unpickle_elsewhere(source: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "aldriver.potentials.mace_convert", "--trust-pickle", str(source), str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != UNSAFE}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{source}: opening it took more than {TIMEOUT_S} s; is it a MACE model?") from error
    if (folder / REFUSED).is_file():
        raise InputError(f"{source}: {json.loads((folder / REFUSED).read_text())['reason']}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{source}: could not be read as a MACE model ({last})")


def _from_files(folder: Path, source: Path, head: str | None, dtype: str) -> MACEPotential:
    from safetensors.torch import load_file

    about = json.loads((folder / ARCH).read_text())
    arch, state, name = about["arch"], load_file(folder / WEIGHTS), f"mace:{source.stem}"
    head = chosen_head(arch["heads"], head, str(source))
    double = MACEPotential.from_state(arch | {"head": head}, state, name=name, dtype="float64")
    frames = _compare(double, json.loads((folder / PROBE).read_text()), source)
    single = double.astype("float32")
    cost = largest_differences(double, single, frames)
    if dtype == "float32" and any(cost[key] > SINGLE[key] for key in SINGLE):
        raise InputError(
            f"{source}: single precision changes this model's numbers by {_text(cost)}; convert it with dtype float64"
        )
    potential = double if dtype == "float64" else single
    potential.origin = about["origin"] | {"source": str(source), "single_precision": cost}
    return potential


def _compare(double: MACEPotential, probe: list[dict[str, Any]], source: Path) -> list[Atoms]:
    """Refuse a copy that does not give what mace's calculator gave, by any head; the probe's frames."""
    frames = [Atoms(e["symbols"], positions=e["positions"], cell=e["cell"], pbc=True) for e in probe]
    for head in double.heads:
        for atoms, entry, p in zip(frames, probe, double.with_head(head).evaluate(frames), strict=True):
            theirs = entry["heads"][head]
            assert p.stress is not None
            off = {
                "energy_meV_atom": 1e3 * abs(p.energy - theirs["energy"]) / len(atoms),
                "forces_meV_A": 1e3 * float(np.abs(p.forces - np.array(theirs["forces"])).max()),
                "stress_GPa": 160.2 * float(np.abs(p.stress - np.array(theirs["stress"])).max()),
            }
            if not all(off[key] <= TOLERANCE[key] for key in TOLERANCE):
                raise InputError(
                    f"{source}: the safe copy does not give mace's numbers (head {head}, "
                    f"{atoms.get_chemical_formula()}: off by {_text(off)}). The model has a part that this version of "
                    "aldriver does not know."
                )
    return frames


def _text(off: dict[str, float]) -> str:
    return f"{off['energy_meV_atom']:.2g} meV/atom, {off['forces_meV_A']:.2g} meV/Å and {off['stress_GPa']:.2g} GPa"


# ---- in the process that opens the file ------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Unpickle SOURCE and write what is needed to build it again into FOLDER."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.potentials.mace_convert", description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trust-pickle", action="store_true", required=True, help="run what the file says")
    options = parser.parse_args(argv)
    try:
        _write_safe_files(options.source, options.folder)
    except InputError as error:
        (options.folder / REFUSED).write_text(dumps({"reason": str(error)}))
        return 2
    return 0


def _write_safe_files(source: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    content = source.read_bytes()
    try:
        with mace_library():
            model = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    except Exception as error:  # whatever unpickling brings up
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"could not be read as a MACE model ({first}){mace_needs()}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"holds a {type(model).__name__}, not a MACE model")
    arch = arch_of(model)
    state = _complete_state(model, arch)
    packages = ("mace-torch", "e3nn", "torch")
    origin = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "precision": str(next(model.parameters()).dtype).removeprefix("torch."),
        "versions": {package: metadata.version(package) for package in packages},
    }
    save_file(state, folder / WEIGHTS)
    (folder / PROBE).write_text(dumps(jsonable(_probe(model, arch))))
    (folder / ARCH).write_text(dumps({"arch": arch, "origin": origin}))


def _complete_state(model: nn.Module, arch: dict[str, Any]) -> dict[str, Tensor]:
    """Weights and constants; constants that an older mace did not keep are those of today's.

    Raises
    ------
    InputError
        When a weight is missing, or there is one today's mace has no place for.
    """
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    fresh = build_module(arch, state, only_references=True)
    weights = {name for name, _ in fresh.named_parameters()}
    constants = {name: tensor for name, tensor in fresh.state_dict().items() if name not in weights}
    if wrong := sorted((weights - set(state)) | (set(state) - weights - set(constants))):
        raise InputError(f"its weights are not those of the architecture mace says it has ({', '.join(wrong[:5])}, …)")
    return {name: tensor.contiguous() for name, tensor in (constants | state).items()}


def _probe(model: nn.Module, arch: dict[str, Any]) -> list[dict[str, Any]]:
    """What mace's own calculator gives, in double precision."""
    from aldriver.potentials.bundle import probe_frames

    frames = probe_frames(frozenset(chemical_symbols[z] for z in arch["atomic_numbers"]))
    entries: list[dict[str, Any]] = [
        {"symbols": a.get_chemical_symbols(), "cell": np.asarray(a.cell), "positions": a.positions, "heads": {}}
        for a in frames
    ]
    with mace_library():
        from mace.calculators import MACECalculator

        for head in arch["heads"]:
            calculator = MACECalculator(models=model, device="cpu", default_dtype="float64", head=head)
            for atoms, entry in zip(frames, entries, strict=True):
                calculator.calculate(atoms)
                results = calculator.results
                entry["heads"][head] = {key: np.asarray(results[key]) for key in ("energy", "forces", "stress")}
    return entries


if __name__ == "__main__":
    sys.exit(main())
