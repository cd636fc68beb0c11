"""The frames of a data set that is to be labelled anew at another level of theory.

Owns where frames are found (in a campaign, a label store, or a file), and that the new store holds one level alone.
Labelling them is ``cache.label_frame``, which takes from the new store what is there: a redo that was stopped goes on.
"""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, read_frames
from aldriver.core.records import read_json
from aldriver.core.store import is_published
from aldriver.label.base import LabelSpec
from aldriver.label.cache import read_label


def frames_of(source: Path) -> list[Atoms]:
    """Each labelled frame once, without its old label: of a campaign, a label store or a file of frames.

    Of a store the frames with a good label are taken. Those that failed there were refused for reasons of the old
    level or of the frame itself; name a file of frames to have them tried.

    Raises
    ------
    InputError
        When there are none.
    """
    source = Path(source)
    if source.is_file():
        frames = read_frames(source)
    else:
        store = source / "labels" if (source / "labels").is_dir() else source
        folders = sorted(p for p in store.glob("*") if is_published(p) and ".attempt-" not in p.name)
        frames = [f for p in folders if read_label(p).ok for f in read_frames(p / "frame.extxyz", groups=False)]
    unique: dict[str, Atoms] = {}
    for frame in frames:
        frame.calc = None
        frame.info["frame_id"] = frame_hash(frame)
        frame.info.pop("label_key", None)
        unique.setdefault(frame.info["frame_id"], frame)
    if not unique:
        raise InputError(f"{source}: holds no labelled frames (a campaign, a label store, or a file of frames)")
    return list(unique.values())


def refuse_other_levels(store: Path, spec: LabelSpec) -> None:
    """Refuse a label store that holds labels of another level of theory.

    Raises
    ------
    InputError
        With the two levels.
    """
    for folder in sorted(Path(store).glob("*")):
        if is_published(folder) and (folder / "spec.json").is_file():
            held = read_json(folder / "spec.json")
            if held.get("digest") != spec.digest():
                level = held.get("method") or held.get("level") or "another"
                raise InputError(
                    f"{store}: holds labels of another level of theory ({level}; now: {spec.method}); two levels do "
                    "not go into one store: name a new folder with --out"
                )
