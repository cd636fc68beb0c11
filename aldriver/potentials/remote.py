"""A potential that runs in another Python: a worker process with the packages this one cannot have.

The worker (``remote_worker.py``) is started when it is first needed and ends with this process, however that ends.
Which Python it runs in is said by the user's configuration (``core/config.py``).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.core.records import jsonable
from aldriver.potentials.base import Potential, Prediction, Stepper
from aldriver.potentials.other_python import OtherPython, python_for, threads_here
from aldriver.potentials.wire import Arrays, pack_frames, unpack_predictions, unpack_rows

MODULE = "aldriver.potentials.remote_worker"


class RemotePotential(Potential):
    """A potential in another Python, with the contract of one in this.

    Parameters
    ----------
    ref
        What the worker loads: a name (``sevennet:7net-0``) or the directory of a saved potential.
    family
        Decides which Python.
    options
        Of ``aldriver.load`` (device, dtype, head); None values are left out.
    known
        Facts that need no worker: ``name``, ``elements``, ``fingerprint``.

    Raises
    ------
    InputError
        When no Python is configured for the family.
    """

    remote = True

    def __init__(
        self,
        ref: str | Path,
        *,
        family: str,
        options: Mapping[str, Any] | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        path = Path(ref)
        self.ref = str(path.resolve()) if path.is_dir() else str(ref)
        self.family = family
        python_for(family)  # that there is none is said at once
        self.options = {k: v for k, v in (options or {}).items() if v is not None}
        self._facts: dict[str, Any] = dict(known or {})
        self._worker = _Worker(family, {"ask": "load", "ref": self.ref, "options": self.options})

    def _fact(self, key: str) -> Any:
        if key not in self._facts:
            self._facts |= self._worker.call("describe")[0]
        return self._facts[key]

    @property
    def name(self) -> str:  # type: ignore[override]
        """As in ``aldriver.load(name)``."""
        return str(self._fact("name"))

    @property
    def elements(self) -> frozenset[str]:  # type: ignore[override]
        """Chemical symbols it knows."""
        return frozenset(self._fact("elements"))

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of architecture and weights."""
        return str(self._fact("fingerprint"))

    @property
    def has_features(self) -> bool:  # type: ignore[override]
        """Whether it has per-atom features."""
        return bool(self._fact("has_features"))

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame; see :meth:`Potential.evaluate`."""
        options = {"stress": stress, "features": features, "batch_atoms": batch_atoms}
        return unpack_predictions(self._worker.call("evaluate", pack_frames(frames), **options)[1])

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Inputs of the last linear layer of each frame, (N, D)."""
        return unpack_rows(self._worker.call("last_layer_features", pack_frames(frames))[1])

    def stepper(self, atoms: Atoms) -> Stepper:
        """Fast repeated evaluation of one cell: species and neighbour list stay in the worker."""
        return self.md_stepper(atoms)

    def md_stepper(self, atoms: Atoms, precision: str | None = None) -> Stepper:
        """See :meth:`Potential.md_stepper`; decided in the worker."""
        self.check_elements([atoms])
        return _RemoteStepper(self._worker, atoms, precision)

    def save(self, folder: str | Path, *, parent: str | None = None, extra: dict[str, Any] | None = None) -> Path:
        """Write the potential into a directory; see ``bundle.save_bundle``."""
        self._worker.call("save", folder=str(Path(folder).resolve()), parent=parent, extra=jsonable(extra))
        return Path(folder)

    def save_vendor(self, path: str | Path) -> Path:
        """Write the potential in its own program's format; see ``vendor.save_vendor``."""
        self._worker.call("save_vendor", path=str(Path(path).resolve()))
        return Path(path)

    def close(self) -> None:
        """End the worker; it is started again when it is needed."""
        self._worker.close()


class _RemoteStepper(Stepper):
    def __init__(self, worker: _Worker, atoms: Atoms, precision: str | None) -> None:
        self._worker, self._precision = worker, precision
        self._frame = pack_frames([atoms])
        self._number = worker.next_number()
        self._opened = 0
        weakref.finalize(self, worker.forget, self._number)
        self._open()

    def _open(self) -> None:
        self._worker.call("stepper", self._frame, number=self._number, precision=self._precision)
        self._opened = self._worker.ensure()

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        if self._opened != self._worker.ensure():  # the worker that held it is gone
            self._open()
        arrays = {"positions": np.asarray(positions, dtype="<f8"), "cell": np.asarray(cell, dtype="<f8")}
        answer = self._worker.call("step", arrays, number=self._number, stress=stress, features=features)
        return unpack_predictions(answer[1])[0]


class _Worker:
    """A worker process with the potential loaded, started on demand."""

    def __init__(self, family: str, first: dict[str, Any]) -> None:
        self._family, self._first = family, first
        self._process: OtherPython | None = None
        self._started = 0
        self._lock = threading.RLock()
        self._forgotten: list[int] = []
        self._numbers = 0

    def next_number(self) -> int:
        """A number no other stepper has."""
        self._numbers += 1
        return self._numbers

    def forget(self, number: int) -> None:
        """Tell the worker with the next question that a stepper is gone."""
        self._forgotten.append(number)

    def call(self, ask: str, arrays: Arrays | None = None, **body: Any) -> tuple[dict[str, Any], Arrays]:
        """Ask, and wait for the answer.

        Raises
        ------
        AldriverError
            What the worker raised; or that it ended, with its last words.
        """
        with self._lock:
            self.ensure()
            return self._exchange({"ask": ask, **body}, arrays)

    def ensure(self) -> int:
        """Start the worker unless it is there; how often it was started so far."""
        with self._lock:
            alive = self._process is not None and self._process.close.alive
            if not alive or self._process.owner != os.getpid():  # type: ignore[union-attr]
                self._process = OtherPython(self._family, MODULE)
                self._started += 1
                try:
                    self._exchange(self._first)
                except AldriverError:
                    self.close()
                    raise
            return self._started

    def _exchange(self, body: dict[str, Any], arrays: Arrays | None = None) -> tuple[dict[str, Any], Arrays]:
        assert self._process is not None
        forgotten, self._forgotten = self._forgotten, []
        self._process.send(body | {"forget": forgotten, "threads": threads_here()}, arrays)
        return self._process.receive(f"answering '{body['ask']}'")

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None
