"""The other end of ``remote.py``: one training in this Python, from the files of its request."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aldriver.core.frames import read_frames
from aldriver.core.recipe_train import Train
from aldriver.core.records import jsonable, read_json
from aldriver.potentials.wire import error_message, send, take_pipes
from aldriver.train.remote import REQUEST, RESULT


def run(folder: Path, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train as requested; what came of it is saved beside the request, the rest of the result is returned."""
    from aldriver.potentials import load
    from aldriver.potentials.bundle import save_bundle
    from aldriver.train import train

    request = read_json(folder / REQUEST)
    start = load(request["start"]["ref"], **request["start"]["options"])
    other = request["foundation"]
    same = other is None or other == request["start"]
    result = train(
        start,
        read_frames(folder / "train.extxyz", groups=False),
        read_frames(folder / "valid.extxyz", groups=False),
        Train.model_validate(request["settings"]),
        folder.parent,
        seed=request["seed"],
        foundation=start if same else load(other["ref"], **other["options"]),
        on_epoch=on_epoch,
        name=request["name"],
    )
    shutil.rmtree(folder / RESULT, ignore_errors=True)
    if result.trained is not None:
        save_bundle(result.trained, folder / RESULT, parent=start.fingerprint)
    facts = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    return dict(jsonable(facts | {"potential": None, "trained": None}))


def main() -> int:
    """Say each epoch and then the result, or what went wrong."""
    _, outgoing = take_pipes()
    try:
        result = run(Path(sys.argv[1]), lambda line: send(outgoing, {"epoch": line}))
    except Exception as error:
        send(outgoing, error_message(error))
        return 1
    send(outgoing, {"result": result})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
