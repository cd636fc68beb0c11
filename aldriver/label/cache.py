"""The label store: each label computed once, published atomically under a key of frame, settings and code.

``LABELS/<key>/`` holds ``label.json`` (the record), ``frame.extxyz`` (labelled when ok), ``spec.json`` and the engine's
inputs and outputs. How a label is made is the labeler's business. Nothing here deletes a published label.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.canonical import canonical, rearranged
from aldriver.core.errors import StoreError
from aldriver.core.frames import PROVENANCE_KEYS, bare, write_frames
from aldriver.core.leftovers import lives_elsewhere, remove_leftovers
from aldriver.core.locks import held, remove_left
from aldriver.core.records import dumps, read_json
from aldriver.core.store import disk_errors, is_published, publish
from aldriver.label.attempts import ABSENT
from aldriver.label.base import Label, Labeler, LabelSpec, Status, frame_provenance, settings_text
from aldriver.label.gate import LabelLimits, check_label
from aldriver.label.process import cancel_on_signals, clean_orphans
from aldriver.label.spin import second_start

LABEL_FILE = "label.json"
_FULL_DISK_BYTES = 16 * 1024
_POLL_S = 0.2
_SILENCE = "silence_s"


class _NotPublished(Exception):
    """Leaves the publishing block without publishing."""


def label_key(frame: Atoms, labeler: Labeler, spec: LabelSpec) -> str:
    """Key of a label: hash of the structure, and of settings and code; the same three never give two labels.

    The structure's hash does not depend on the order of its sites, nor on which images of its atoms are written.
    """
    how = hashlib.sha256(f"{spec.digest()} {labeler.code_id}".encode()).hexdigest()[:12]
    return f"{canonical(frame).digest}-{how}"


def label_frame(
    frame: Atoms,
    labeler: Labeler,
    spec: LabelSpec,
    labels_dir: Path,
    *,
    limits: LabelLimits | None = None,
    again: Collection[Status] = (),
) -> Label:
    """Label a frame, or read the label if it is there; also between processes it is never computed twice.

    A failure is published like a value and never raised, so that it does not stop the siblings. Only a cancelled
    label, and one whose engine is not here, is not published. A published ``timeout`` or ``unconverged`` is tried again
    when `spec` now allows more time or steps.

    Parameters
    ----------
    limits
        Of the gate (``gate.check_label``); a stored label is judged by them anew.
    again
        Statuses that are computed anew when found in the store; the old record is kept as ``<key>.attempt-<n>``.

    Raises
    ------
    StoreError
        When the disk is full or not writable, or the stored label is damaged.
    """
    labels_dir = Path(labels_dir)
    key = label_key(frame, labeler, spec)
    final = labels_dir / key
    with disk_errors(labels_dir):
        labels_dir.mkdir(parents=True, exist_ok=True)
    lock = labels_dir / f".{key}.lock"
    found = _stored(final, frame, spec, again)
    if found is not None:
        remove_left(lock)
        return _judged(found, frame, limits)
    with held(lock, cancel=labeler._cancel) as locked:
        found = _stored(final, frame, spec, again)
        # the locks of some file systems end at the host: a worker of another one may be at this label in spite of ours
        while found is None and locked and _busy_elsewhere(labels_dir, key) and not labeler.cancelled:
            labeler._cancel.wait(_POLL_S)
            found = _stored(final, frame, spec, again)
        if found is not None:
            return _judged(found, frame, limits)
        if labeler.cancelled:
            return Label(status="cancelled", reason="cancelled before it started", key=key)
        # whoever of this host left work on this key behind is dead, for we hold its lock
        clean_orphans(labels_dir, pattern=f".tmp-{key}-*/**")
        remove_leftovers(labels_dir, pattern=f".tmp-{key}-*")
        _set_aside(final)
        return _compute(frame, labeler, spec, final, limits)


def find_label(frame: Atoms, labeler: Labeler, spec: LabelSpec, labels_dir: Path) -> tuple[str, Label | None]:
    """Key of a frame's label, and the label in the order of the frame's atoms; None when there is none yet."""
    key = label_key(frame, labeler, spec)
    folder = Path(labels_dir) / key
    return key, read_label(folder, frame) if is_published(folder) else None


def read_label(folder: Path, frame: Atoms | None = None) -> Label:
    """The label published in `folder`, in the order of the atoms it was computed in, or of those of `frame`.

    Raises
    ------
    StoreError
        When it is missing or damaged.
    """
    folder = Path(folder)
    try:
        label = replace(Label.from_json(read_json(folder / LABEL_FILE)), cached=True)
        return label if frame is None else _in_order_of(label, frame)
    except StoreError as error:
        raise StoreError(f"{folder}: {error}") from error


def _in_order_of(label: Label, frame: Atoms) -> Label:
    order = canonical(frame).order
    old = np.asarray(label.provenance.get("canonical_order", ()), dtype=np.int64)
    if sorted(old) != list(range(len(order))):
        raise StoreError("its record does not say in which order of the atoms it was computed (canonical_order)")

    def moved(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        # of another length they are those of a label the gate refused
        return rearranged(values, old, order) if values is not None and len(values) == len(order) else values

    return replace(label, forces=moved(label.forces), magmoms=moved(label.magmoms))


def _stored(final: Path, frame: Atoms, spec: LabelSpec, again: Collection[Status]) -> Label | None:
    if not is_published(final):
        return None
    label = read_label(final, frame)
    return None if label.status in again or _more_effort(label, spec) else label


def _judged(label: Label, frame: Atoms, limits: LabelLimits | None) -> Label:
    """A stored label by the limits of today: one that others refused still has its values, and is not lost."""
    if label.status == "rejected" and label.energy is not None and label.forces is not None:
        label = replace(label, status="ok", reason="")
    return check_label(label, frame, limits)


def _more_effort(label: Label, spec: LabelSpec) -> bool:
    """Whether `spec` allows more of what a stored failure ran out of."""
    before = label.provenance.get("effort", {})
    if label.status == "timeout":
        longer = spec.timeout_s > float(label.provenance.get("timeout_s", 0.0))
        return longer or spec.effort.get(_SILENCE, 0.0) > before.get(_SILENCE, float("inf"))
    more = any(v > before.get(k, 0.0) for k, v in spec.effort.items() if k != _SILENCE)
    return label.status == "unconverged" and more


def _compute(frame: Atoms, labeler: Labeler, spec: LabelSpec, final: Path, limits: LabelLimits | None) -> Label:
    """Label and publish; a signal to this process is obeyed only after everything is tidy."""
    unpublished: Label | None = None
    with cancel_on_signals(labeler._cancel):
        try:
            with publish(final) as tmp:
                label = _label_safely(frame, labeler, tmp, limits)
                label = check_label(label, frame, limits)
                label = _with_provenance(label, frame, labeler, spec, final.name)
                if label.status == "cancelled" or ABSENT in label.provenance:
                    unpublished = label
                    raise _NotPublished
                _refuse_full_disk(label, tmp)
                _write(label, frame, spec, tmp)
        except _NotPublished:
            assert unpublished is not None
            return unpublished
    return label


def _label_safely(frame: Atoms, labeler: Labeler, workdir: Path, limits: LabelLimits | None) -> Label:
    start, cpu = time.monotonic(), time.process_time()
    try:
        if labeler.cancelled:
            return Label(status="cancelled", reason="cancelled before it started")
        label = labeler.label(frame, workdir)
        if label.ok and limits is not None and limits.second_start:
            label = second_start(label, frame, labeler, workdir, start=limits.second_start, moments=limits.moments)
        return label
    except Exception as error:
        if isinstance(error, StoreError) or _is_disk_error(error):
            raise
        return Label(
            status="failed",
            reason=f"the label engine raised {type(error).__name__}: {error}",
            seconds=time.monotonic() - start,
            cpu_s=time.process_time() - cpu,
        )


def _is_disk_error(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _refuse_full_disk(label: Label, tmp: Path) -> None:
    """A crash on a full disk says nothing about the frame: stop instead of publishing it as a failure."""
    if label.status == "failed" and shutil.disk_usage(tmp).free < _FULL_DISK_BYTES:
        raise OSError(errno.ENOSPC, "no space left while labelling")


def _with_provenance(label: Label, frame: Atoms, labeler: Labeler, spec: LabelSpec, key: str) -> Label:
    common = {
        "engine": spec.engine,
        "method": spec.method,
        "settings_digest": spec.digest(),
        "code_id": labeler.code_id,
        "timeout_s": spec.timeout_s,
        "effort": dict(spec.effort),
        "parent": frame_provenance(frame),
        "canonical_order": canonical(frame).order.tolist(),
        "host": os.uname().nodename,
        "created": time.time(),
    }
    return replace(label, key=key, provenance=common | label.provenance)


def _write(label: Label, frame: Atoms, spec: LabelSpec, folder: Path) -> None:
    (folder / LABEL_FILE).write_text(dumps(label.to_json()))
    (folder / "spec.json").write_text(settings_text(spec))
    if label.ok:
        out = label.labelled(frame)
    else:
        out = bare(frame)
        out.info = {k: v for k, v in frame.info.items() if k in PROVENANCE_KEYS}
        out.info |= {"label_key": label.key, "label_status": label.status}
    write_frames(folder / "frame.extxyz", [out])


def _set_aside(final: Path) -> None:
    """Keep an earlier attempt under a name of its own."""
    if not is_published(final):
        return
    number = 1
    while final.with_name(f"{final.name}.attempt-{number}").exists():
        number += 1
    with disk_errors(final):
        final.rename(final.with_name(f"{final.name}.attempt-{number}"))


def _busy_elsewhere(labels_dir: Path, key: str) -> bool:
    return any(lives_elsewhere(tmp) for tmp in labels_dir.glob(f".tmp-{key}-*"))


def tidy(labels_dir: Path) -> int:
    """After a crash: end orphaned engines, then remove what their starters left; returns processes ended."""
    if not Path(labels_dir).is_dir():
        return 0
    ended = clean_orphans(labels_dir, pattern=".tmp-*/**")
    remove_leftovers(labels_dir)
    return ended
