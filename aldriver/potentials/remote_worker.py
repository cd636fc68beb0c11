"""The other end of ``remote.py``: loads a potential in this Python and answers, until nobody asks any more.

It knows no family: it loads what it is told to and calls what the contract has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError
from aldriver.potentials.base import Potential, Stepper
from aldriver.potentials.wire import (
    Arrays,
    error_message,
    pack_predictions,
    pack_rows,
    receive,
    send,
    take_pipes,
    unpack_frames,
)


class Server:
    """One potential, its steppers, and a method per question."""

    def __init__(self) -> None:
        self._potential: Potential | None = None
        self._steppers: dict[int, Stepper] = {}
        self._threads: int | None = None

    @property
    def potential(self) -> Potential:
        """The one that was loaded."""
        if self._potential is None:
            raise AldriverError("no potential has been loaded")
        return self._potential

    def answer(self, body: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """What the question's method says."""
        for number in body.pop("forget", ()):
            self._steppers.pop(number, None)
        threads = body.pop("threads", None)
        if threads is not None and threads != self._threads:
            import torch

            torch.set_num_threads(threads)
            self._threads = threads
        question = body.pop("ask")
        method = getattr(self, f"do_{question}")
        answer: tuple[dict[str, Any], Arrays] = method(arrays, **body)
        return answer

    def do_load(self, arrays: Arrays, *, ref: str, options: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """Load a potential, and say what it is."""
        from aldriver.potentials import load

        self._potential = load(ref, **options)
        return self.do_describe(arrays)

    def do_describe(self, arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Name, family, elements, fingerprint."""
        p = self.potential
        facts = {"name": p.name, "family": p.family, "elements": sorted(p.elements), "fingerprint": p.fingerprint}
        return facts | {"has_features": p.has_features}, {}

    def do_evaluate(self, arrays: Arrays, **options: Any) -> tuple[dict[str, Any], Arrays]:
        """Predictions of frames."""
        return {}, pack_predictions(self.potential.evaluate(unpack_frames(arrays), **options))

    def do_last_layer_features(self, arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Inputs of the last linear layer."""
        return {}, pack_rows(self.potential.last_layer_features(unpack_frames(arrays)))

    def do_stepper(self, arrays: Arrays, *, number: int, precision: str | None) -> tuple[dict[str, Any], Arrays]:
        """Keep a stepper of a cell under a number."""
        self._steppers[number] = self.potential.md_stepper(unpack_frames(arrays)[0], precision)
        return {}, {}

    def do_step(self, arrays: Arrays, *, number: int, **options: Any) -> tuple[dict[str, Any], Arrays]:
        """One prediction of a stepper."""
        prediction = self._steppers[number](arrays["positions"], arrays["cell"], **options)
        return {}, pack_predictions([prediction])

    def do_save(self, arrays: Arrays, *, folder: str, **options: Any) -> tuple[dict[str, Any], Arrays]:
        """Save the potential as a bundle."""
        from aldriver.potentials.bundle import save_bundle

        save_bundle(self.potential, Path(folder), **options)
        return {}, {}

    def do_save_vendor(self, arrays: Arrays, *, path: str) -> tuple[dict[str, Any], Arrays]:
        """Write the potential in its own program's format."""
        from aldriver.potentials.vendor import save_vendor

        save_vendor(self.potential, Path(path))
        return {}, {}


def main() -> int:
    """Answer one question after the other."""
    incoming, outgoing = take_pipes()
    server = Server()
    while True:
        try:
            body, arrays = receive(incoming)
        except EOFError:
            return 0
        try:
            answer, found = server.answer(body, arrays)
        except Exception as error:
            answer, found = error_message(error), {}
        send(outgoing, answer, found)


if __name__ == "__main__":
    raise SystemExit(main())
