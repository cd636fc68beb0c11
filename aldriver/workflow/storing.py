"""What several stages write alike: potentials with their detector, predictions, and the labelled data so far."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import PropertyRecord, dumps, read_json
from aldriver.core.store import is_published, publish
from aldriver.workflow.campaign import Campaign

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Detector
    from aldriver.potentials import Potential


def publish_potential(campaign: Campaign, potential: Potential, detector: Detector, card: dict[str, Any]) -> Path:
    """``potentials/<fingerprint>/``: the bundle, its detector and ``card.json``, in one go."""
    from aldriver.potentials.bundle import save_bundle

    final = campaign.potential(potential.fingerprint)
    if not is_published(final):
        with publish(final) as tmp:
            save_bundle(potential, tmp, parent=card.get("parent"))
            detector.save(tmp / "detector")
            facts = {"fingerprint": potential.fingerprint, "campaign": campaign.id, "recipe": campaign.digest}
            (tmp / "card.json").write_text(dumps(facts | card))
    return final


def card(campaign: Campaign, fingerprint: str) -> dict[str, Any]:
    """``card.json`` of a potential: generation, parent, energy shift."""
    return dict(read_json(campaign.potential(fingerprint) / "card.json"))


def write_predictions(path: Path, potential: Potential, frames: list[Atoms], shift: Mapping[str, float] | None) -> None:
    """Reference and predicted values for parity plots: energies (eV, total, shifted), forces (eV/Å, all atoms)."""
    from aldriver.core.frames import label_of
    from aldriver.train import shifted_energy

    predictions = potential.evaluate(frames, stress=False)
    np.savez_compressed(
        path,
        energies_ref=np.array([shifted_energy(a, label_of(a, "energy"), shift) for a in frames]),
        energies_pred=np.array([p.energy for p in predictions]),
        forces_ref=np.concatenate([label_of(a, "forces") for a in frames]),
        forces_pred=np.concatenate([p.forces for p in predictions]),
        n_atoms=np.array([len(a) for a in frames]),
    )


def stored_labels(campaign: Campaign, generation: int) -> list[list[Atoms]]:
    """Good labels of generations 1 to `generation`, one list each, with the energies as computed."""
    from aldriver.core.frames import read_frames

    paths = [campaign.stage(g, "label") / "dataset.extxyz" for g in range(1, generation + 1)]
    return [read_frames(path, labelled=True) if path.is_file() else [] for path in paths]


def labelled_frames(campaign: Campaign, generation: int) -> list[list[Atoms]]:
    """As :func:`stored_labels`, on the energy scale of the campaign's potential."""
    return [_on_scale(campaign, frames) for frames in stored_labels(campaign, generation)]


def records_of(campaign: Campaign, generation: int, stage: str) -> list[PropertyRecord]:
    """Benchmark records that a stage published; none where it did not."""
    path = campaign.stage(generation, stage) / "records.json"
    return [PropertyRecord(**fields) for fields in read_json(path)] if path.is_file() else []


def test_frames(campaign: Campaign) -> list[Atoms]:
    """The independent test set on the energy scale of the campaign's potential, empty when the campaign has none."""
    from aldriver.core.frames import read_frames

    path = campaign.stage(0, "reference") / "test.extxyz"
    return _on_scale(campaign, read_frames(path, labelled=True)) if path.is_file() else []


def _on_scale(campaign: Campaign, frames: list[Atoms]) -> list[Atoms]:
    """Frames with the energies the campaign's potential learns; the files keep them as computed.

    Raises
    ------
    InputError
        When the campaign's labels are corrected (MP2020), and one of the frames cannot be.
    """
    from aldriver.train.mp2020 import uncorrected
    from aldriver.train.prepare import on_scale

    if not any(str(atoms.info.get("level", "")).startswith("vasp:") for atoms in frames):
        return frames
    scale = _scale(campaign)
    return uncorrected(frames) if scale == "" else on_scale(frames, scale, settled=True)


@lru_cache(maxsize=4)
def _scale(campaign: Campaign) -> str:
    """Scale of all energies of a campaign: decided once, by its systems and its test set, before there is a label.

    A system is corrected like all frames of its MD, which have its composition.
    """
    from aldriver.core.frames import read_frames
    from aldriver.core.systems import build_systems
    from aldriver.label import make_labeler
    from aldriver.potentials.families import energy_scale_of
    from aldriver.train.mp2020 import can_be_corrected

    if energy_scale_of(campaign.recipe.potential) != "mp2020":
        return ""
    systems = build_systems(campaign.recipe)
    elements = sorted({symbol for atoms in systems for symbol in atoms.get_chemical_symbols()})
    level = make_labeler(campaign.recipe.label, elements)[1].level
    for atoms in systems:
        atoms.info["level"] = level
    path = campaign.stage(0, "reference") / "test.extxyz"
    test = read_frames(path, labelled=True) if path.is_file() else []
    return "mp2020" if all(can_be_corrected(atoms) for atoms in [*systems, *test]) else ""
