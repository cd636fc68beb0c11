"""Writes the good labels of ``ingest.py`` into a label store and appends them to the data set of their level.

Owns how thousands of labels are written at the pace of their reading: folders are flushed together, a frame is put into
words once for its folder and its data set. What is good, and under which key, is decided before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from aldriver.core.frames import frame_hash, frame_text
from aldriver.core.leftovers import remove_leftovers
from aldriver.core.records import dumps
from aldriver.core.store import disk_errors, fsync_path, is_published, publish_together
from aldriver.label.base import Label
from aldriver.label.cache import LABEL_FILE
from aldriver.label.found import FoundLabel


@contextmanager
def label_writer(out: Path) -> Iterator[LabelWriter]:
    """A writer into the store `out`; what it was given is on disk when the block has ended.

    Raises
    ------
    StoreError
        When the disk is full or not writable.
    """
    remove_leftovers(out)
    with disk_errors(out), publish_together(out) as new:
        writer = LabelWriter(out, new)
        try:
            yield writer
            writer.replace_data_sets()
        finally:
            writer.discard()


class LabelWriter:
    """Takes labels one at a time; made by ``label_writer``."""

    def __init__(self, out: Path, new: Any) -> None:
        self.out, self._new = out, new
        self._sets: dict[Path, tuple[IO[str], set[str]]] = {}

    def add(self, found: FoundLabel, key: str, words: str, data_set: str, group: str, file_sha256: str) -> bool:
        """Store a label, and its frame in `data_set` of the store; True when the store had it."""
        provenance = found.label.provenance | {
            "ingested_from": found.source,
            "file_sha256": file_sha256,
            "level": words,
            "settings": dict(found.settings),
        }
        label = replace(found.label, key=key, provenance=provenance)
        frame = label.labelled(found.frame)
        frame.info |= {"level": words, "group": group, "frame_id": frame_hash(frame)}
        text = frame_text(frame)
        known = is_published(self.out / key)
        if not known:
            self._write_folder(label, text, {"level": words, "settings": dict(found.settings)})
        handle, keys = self._data_set(self.out / data_set)
        if key not in keys:
            keys.add(key)
            handle.write(text)
        return known

    def _write_folder(self, label: Label, frame: str, spec: Mapping[str, Any]) -> None:
        folder: Path = self._new(label.key)
        (folder / LABEL_FILE).write_text(json.dumps(label.to_json(), allow_nan=False))
        (folder / "spec.json").write_text(dumps(spec))
        (folder / "frame.extxyz").write_text(frame)

    def _data_set(self, path: Path) -> tuple[IO[str], set[str]]:
        """The copy of a data set that is being added to, and the keys in it."""
        if path not in self._sets:
            copy = _copy_of(path)
            keys: set[str] = set()
            if path.is_file():
                shutil.copyfile(path, copy)
                with path.open() as lines:
                    keys = {m.group(1) for line in lines if (m := re.search(r"\blabel_key=(\S+)", line))}
            self._sets[path] = (copy.open("a"), keys)
        return self._sets[path]

    def replace_data_sets(self) -> None:
        """Put the copies in the place of the data sets."""
        for path, (handle, _) in self._sets.items():
            handle.flush()
            os.fsync(handle.fileno())
            _copy_of(path).replace(path)
        fsync_path(self.out)

    def discard(self) -> None:
        """Close the copies and remove those that took no place."""
        for path, (handle, _) in self._sets.items():
            handle.close()
            _copy_of(path).unlink(missing_ok=True)


def _copy_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
