"""Training of a potential that runs in another Python: the same ``train()``, called there.

Frames and settings lie in ``out/remote`` as plain files, epochs are reported while they come, and the result is a saved
potential. The loop and its checkpoints are the worker's (``remote_worker.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aldriver.core.frames import write_frames
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write
from aldriver.potentials.other_python import OtherPython
from aldriver.train import TrainResult

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential
    from aldriver.potentials.remote import RemotePotential

FOLDER, REQUEST, RESULT = "remote", "request.json", "potential"
MODULE = "aldriver.train.remote_worker"


def train_remotely(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    name: str | None = None,
) -> TrainResult:
    """As :func:`aldriver.train.train`, in the Python of `start`.

    Interrupted (a signal, Ctrl-C, kill -9) it ends there too; called again with the same arguments it goes on from the
    last complete epoch.

    Raises
    ------
    AldriverError
        Whatever ``train()`` raises there; or that the worker ended, with its last words.
    """
    folder = Path(out).resolve() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_frames(folder / "train.extxyz", train_frames)
    write_frames(folder / "valid.extxyz", valid_frames)
    request = {
        "start": _named(start, folder / "start"),
        "foundation": None if foundation is None else _named(foundation, folder / "foundation"),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "name": name,
    }
    atomic_write(folder / REQUEST, dumps(request))
    worker = OtherPython(start.family, MODULE, (str(folder),))
    try:
        while True:
            said, _ = worker.receive("training")
            if "result" in said:
                break
            if on_epoch is not None:
                on_epoch(said["epoch"])
    finally:
        worker.close()
    trained = _refined(folder, start) if (folder / RESULT).is_dir() else None
    potential = trained if trained is not None and said["result"]["accepted"] else start
    return TrainResult(**said["result"] | {"potential": potential, "trained": trained})


def _named(potential: Potential, folder: Path) -> dict[str, Any]:
    """How the worker loads a potential: as it was loaded here, or from a copy saved for it."""
    if getattr(potential, "remote", False):
        remote = cast("RemotePotential", potential)
        return {"ref": remote.ref, "options": remote.options}
    from aldriver.potentials.bundle import save_bundle

    return {"ref": str(save_bundle(potential, folder)), "options": {}}


def _refined(folder: Path, start: Potential) -> Potential:
    from aldriver.potentials.bundle import load_bundle

    device = cast("RemotePotential", start).options.get("device", "cpu")
    return load_bundle(folder / RESULT, device=device)
