"""The inbox of a campaign: frames that monitors of production runs flagged, until a generation labels them.

One file per frame, named by its hash: the same frame never lies there twice, and stays after it was taken. Choosing
among a generation's own candidates is ``stage_select.py``'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aldriver.core.frames import frame_text
from aldriver.core.store import atomic_write, disk_errors
from aldriver.workflow.campaign import Campaign, open_campaign

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from aldriver.detect import Detector
    from aldriver.potentials import Potential

INBOX = "inbox"
ORIGIN = "monitor"
SHARE = 0.5
"""Most of a generation's label budget that goes to frames of the inbox."""
Cost = Callable[[list["Atoms"]], "NDArray[np.float64]"]
_KEPT = ("frame_id", "group", "step")


class Inbox:
    """Where a monitor drops frames.

    Raises
    ------
    InputError
        When there is no campaign.
    """

    def __init__(self, root: str | Path) -> None:
        from aldriver.core.systems import build_systems

        campaign = open_campaign(root)
        self.folder = campaign.root / INBOX
        self.elements = {s for atoms in build_systems(campaign.recipe) for s in atoms.get_chemical_symbols()}
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)

    def put(self, frame: Atoms) -> str:
        """Drop a frame with its ``frame_id``; why it cannot be labelled by the campaign, empty when it can."""
        foreign = sorted(set(frame.get_chemical_symbols()) - self.elements)
        if foreign:
            return f"not handed to the campaign: its recipe has no {', '.join(foreign)}"
        path = self.folder / f"{frame.info['frame_id']}.extxyz"
        if not path.exists():
            atomic_write(path, frame_text(frame))
        return ""


def waiting(campaign: Campaign, generation: int) -> list[Atoms]:
    """Frames of the inbox that no generation before `generation` has selected, by name."""
    from aldriver.core.frames import read_frames

    files = sorted((campaign.root / INBOX).glob("[!.]*.extxyz"))
    if not files:
        return []
    taken = set()
    for g in range(1, generation):
        path = campaign.stage(g, "select") / "selected.extxyz"
        taken |= {str(frame.info["frame_id"]) for frame in read_frames(path)} if path.is_file() else set()
    return [frame for path in files for frame in read_frames(path) if str(frame.info["frame_id"]) not in taken]


def from_inbox(
    campaign: Campaign,
    generation: int,
    *,
    potential: Potential,
    detector: Detector,
    known: list[Atoms],
    budget: int,
    core_hours: float | None,
    cost: Cost | None,
    seed: int,
) -> tuple[list[Atoms], float]:
    """Frames of the inbox that deserve a label: those that today's detector flags too, unlike each other and `known`.

    At most :data:`SHARE` of `budget` (rounded up) and of `core_hours`, worst first; ``origin`` is ``monitor``.

    Parameters
    ----------
    cost
        Expected core-hours of labels; None while nothing is known of them.

    Returns
    -------
    frames, hours
        And the core-hours their labels are expected to cost.
    """
    from aldriver.core.frames import bare
    from aldriver.detect import Selector

    frames = waiting(campaign, generation)
    if not frames or budget < 1:
        return [], 0.0
    scores = detector.score(frames, potential)
    selector = Selector(seed=seed)
    selector.add(
        [str(frame.info["frame_id"]) for frame in frames],
        [one.ratio for one in scores],
        detector.frame_vectors(frames, potential=potential),
        costs=cost(frames) if cost else None,
        refused=["unphysical" if one.unphysical else "" for one in scores],
    )
    selection = selector.select(
        budget=int(np.ceil(SHARE * budget)),
        core_hours=SHARE * core_hours if cost and core_hours is not None else None,
        known=detector.frame_vectors(known, potential=potential) if known else None,
    )
    found = []
    for k in selection.chosen:
        frame = bare(frames[k])
        frame.info = {key: frames[k].info[key] for key in _KEPT if key in frames[k].info}
        frame.info |= {"origin": ORIGIN, "ratio": float(scores[k].ratio), "generation": generation}
        found.append(frame)
    return found, selection.core_hours
