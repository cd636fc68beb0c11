"""Errors of a model in training, in the units people quote. Errors of any finished potential: ``benchmark/``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aldriver.core.recipe_train import Train
from aldriver.train.base import TrainAdapter
from aldriver.train.loss import TERMS, Example, counts_of, loss_sums

Metrics = dict[str, float | None]
EVALUATION_ATOMS = 128
"""Atoms in a batch when nothing is trained."""
UNITS = (("energy", "meV_atom", 1e3), ("forces", "meV_A", 1e3), ("stress", "GPa", 1.0), ("magmoms", "muB", 1.0))


def batches_by_atoms(examples: Sequence[Example], limit: int = EVALUATION_ATOMS) -> list[list[Example]]:
    """Consecutive examples with up to `limit` atoms together (at least one example each)."""
    batches: list[list[Example]] = []
    size = limit + 1
    for example in examples:
        if size + len(example) > limit:
            batches.append([])
            size = 0
        batches[-1].append(example)
        size += len(example)
    return batches


def measure(adapter: TrainAdapter, examples: Sequence[Example], settings: Train) -> Metrics:
    """Loss and errors of the model as it is now.

    Returns
    -------
    dict
        ``loss`` (the training loss over all frames at once), ``energy_mae_meV_atom``, ``energy_rmse_meV_atom``,
        ``forces_mae_meV_A``, ``forces_rmse_meV_A`` (per component), ``stress_mae_GPa``, ``stress_rmse_GPa`` (per tensor
        element; None without stress labels); where moments are in the loss also ``magmoms_mae_muB`` and
        ``magmoms_rmse_muB``. A model that has blown up gives NaN.
    """
    sums = dict.fromkeys(TERMS, 0.0)
    residuals: dict[str, list[torch.Tensor]] = {key: [] for key in TERMS}
    for batch in batches_by_atoms(examples):
        p = adapter.predict([x.graph for x in batch], training=False)
        for key, value in loss_sums(p, batch, delta=settings.huber_delta).items():
            sums[key] += float(value)
        residuals["energy"].append(p.energy - torch.stack([x.energy for x in batch]))
        residuals["forces"].append((p.forces - torch.cat([x.forces for x in batch])).flatten())
        residuals["stress"] += [(p.stress[i] - x.stress).flatten() for i, x in enumerate(batch) if x.stress is not None]
        if p.magmoms is not None:
            own = torch.split(p.magmoms, [len(x) for x in batch])
            residuals["magmoms"] += [m - x.magmoms for m, x in zip(own, batch, strict=True) if x.magmoms is not None]
    counts = counts_of(examples)
    metrics: Metrics = {"loss": sum(getattr(settings.weights, key) / counts[key] * sums[key] for key in TERMS)}
    for key, unit, scale in UNITS:
        if key == "magmoms" and settings.weights.magmoms == 0:
            continue
        values = torch.cat(residuals[key]).double() * scale if residuals[key] else None
        metrics[f"{key}_mae_{unit}"] = None if values is None else float(values.abs().mean())
        metrics[f"{key}_rmse_{unit}"] = None if values is None else float(values.square().mean().sqrt())
    return metrics
