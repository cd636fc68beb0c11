"""Label: one selected frame per task, and the join that gathers what became of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aldriver.core.records import dumps
from aldriver.workflow import interrupt
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.progress import Progress
from aldriver.workflow.stage_select import selected_frames
from aldriver.workflow.stages import publishing, threads
from aldriver.workflow.storing import stored_labels

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.label import Label, Labeler, LabelLimits, LabelSpec


def label_stage(campaign: Campaign, generation: int, index: int) -> None:
    """``labels/<key>/`` of one selected frame: a value or a reason; a label that is there is not computed again."""
    from aldriver.label import label_frame

    frame = selected_frames(campaign, generation)[index]
    labeler, spec = _labeler(campaign)
    with Progress(campaign.root, "label", generation, index), _cancelling(campaign, labeler):
        label = label_frame(frame, labeler, spec, campaign.labels, limits=label_limits(campaign, generation))
    if label.status == "cancelled":
        if interrupt.pending():
            raise interrupt.Interrupted(label.reason)
        raise RuntimeError(f"the label was cancelled: {label.reason}")
    _record(campaign, generation, index, label)


def collect_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``label/``: ``dataset.extxyz`` of the good labels, and ``labels.json`` with the fate of each selected frame."""
    if campaign.is_published(generation, "label"):
        return
    from aldriver.core.frames import write_frames

    with publishing(campaign, "collect", generation, campaign.stage(generation, "label")) as (tmp, _):
        good, fates = [], []
        spec = _labeler(campaign)[1]
        limits = label_limits(campaign, generation, with_own=True)
        for i, frame in enumerate(selected_frames(campaign, generation)):
            key, label = _found(campaign, frame)
            if label is not None:
                _record(campaign, generation, i, label)
                label = _judged_together(campaign, generation, i, frame, label, limits)
                if label.ok:
                    good.append(_labelled(label, frame, spec.level))
            fates.append(_fate(frame, key, label))
        write_frames(tmp / "dataset.extxyz", good)
        (tmp / "labels.json").write_text(dumps(fates))


def label_limits(campaign: Campaign, generation: int, *, with_own: bool = False) -> LabelLimits:
    """Limits of the recipe, with the energy reference of the labels there are.

    Parameters
    ----------
    with_own
        Also of this generation's labels, once they are all there; otherwise of those before.
    """
    from aldriver.core.frames import label_of
    from aldriver.label import LabelLimits
    from aldriver.label.energy_reference import fit_energies

    limits = LabelLimits.of(campaign.recipe.label)
    if limits.reference is not None:
        return limits
    known = [(f, label_of(f, "energy")) for frames in stored_labels(campaign, generation - 1) for f in frames]
    if with_own:
        found = [(f, _found(campaign, f)[1]) for f in selected_frames(campaign, generation)]
        known += [(f, label.energy) for f, label in found if label is not None and label.ok]
    return replace(limits, reference=fit_energies([f for f, _ in known], [e for _, e in known]))


def _judged_together(
    campaign: Campaign, generation: int, index: int, frame: Atoms, label: Label, limits: LabelLimits
) -> Label:
    """A label beside all others of the campaign; what that changes is noted, once."""
    from aldriver.label import check_label

    judged = check_label(label, frame, limits)
    fields = {"key": label.key, "status": judged.status, "generation": generation}
    if judged.status != label.status and not campaign.ledger.find("label", **fields):
        campaign.ledger.append(
            "label", **fields, reason=judged.reason, index=index, seconds=0.0, cpu_s=0.0, cores=1, cached=True
        )
    return judged


def _labeler(campaign: Campaign) -> tuple[Labeler, LabelSpec]:
    return _make_labeler(campaign, threads(campaign, "label"))


@lru_cache(maxsize=1)
def _make_labeler(campaign: Campaign, n_threads: int) -> tuple[Labeler, LabelSpec]:
    from aldriver.core.systems import build_systems
    from aldriver.label import make_labeler

    elements = sorted({s for atoms in build_systems(campaign.recipe) for s in atoms.get_chemical_symbols()})
    return make_labeler(campaign.recipe.label, elements, threads=n_threads)


@contextmanager
def _cancelling(campaign: Campaign, labeler: Labeler) -> Iterator[None]:
    """Cancel the label in progress when the campaign is cancelled, wherever this runs, or when a signal waits."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if campaign.cancelled or interrupt.pending():
                labeler.cancel()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _record(campaign: Campaign, generation: int, index: int, label: Label) -> None:
    """Note the label of a selected frame in the ledger, once; its cost counts where it was first computed."""
    noted = campaign.ledger.find("label", key=label.key)
    if any((e["generation"], e.get("index")) == (generation, index) for e in noted):
        return
    campaign.ledger.append(
        "label",
        key=label.key,
        status=label.status,
        reason=label.reason,
        generation=generation,
        index=index,
        seconds=0.0 if noted else label.seconds,
        cpu_s=0.0 if noted else label.cpu_s,
        cores=threads(campaign, "label"),
        cached=bool(noted),
    )


def _found(campaign: Campaign, frame: Atoms) -> tuple[str, Label | None]:
    from aldriver.label.cache import find_label

    return find_label(frame, *_labeler(campaign), campaign.labels)


def _labelled(label: Label, frame: Atoms, level: str) -> Atoms:
    out = label.labelled(frame)
    out.info["level"] = level
    out.info |= {k: frame.info[k] for k in ("origin", "ratio") if k in frame.info}
    return out


def _fate(frame: Atoms, key: str, label: Label | None) -> dict[str, Any]:
    fate = {"key": key, "frame_id": frame.info["frame_id"], "group": frame.info.get("group")}
    fate |= {"origin": frame.info.get("origin"), "ratio": frame.info.get("ratio")}
    if label is None:
        missing = "its task failed before there was a label; the next resume labels it if it is selected again"
        return fate | {"status": "failed", "reason": missing, "seconds": 0.0, "cpu_s": 0.0}
    return fate | {"status": label.status, "reason": label.reason, "seconds": label.seconds, "cpu_s": label.cpu_s}
