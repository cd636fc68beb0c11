"""A synthetic campaign in the campaign file formats: three generations of bcc iron, with failures of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from ase.build import bulk

from aldriver.core.frames import write_frames
from aldriver.core.records import PropertyRecord, dumps

FINGERPRINTS = ["f0" * 8, "a1" * 8, "b2" * 8, "c3" * 8]
FORCE_RMSE = [239.6, 61.2, 70.9, 36.4]
DECISIONS = ["promote", "promote", "hold", "promote"]
REASONS = [
    "baseline",
    "force RMSE 61.2 meV/Å is 0.26 of the foundation's 239.6; no property got worse",
    "force RMSE 70.9 meV/Å is 1.16 of the promoted potential's 61.2 (allowed 1.0)",
    "force RMSE 36.4 meV/Å is 0.59 of the promoted potential's 61.2",
]
REFERENCE = {
    "lattice_constant": (2.855, "Å"),
    "bulk_modulus": (177.0, "GPa"),
    "c11": (243.0, "GPa"),
    "c12": (145.0, "GPa"),
    "c44": (116.0, "GPa"),
    "vacancy_formation_energy": (1.72, "eV"),
}
DEVIATIONS = [0.3, 0.08, 0.1, 0.02]
SIGNALS = ("soap_q", "soap_t2", "feature_distance")


def recipe(name: str = "fe-vacancy") -> dict:
    """The recipe, resolved."""
    return {
        "name": name,
        "seed": 7,
        "potential": "chgnet:0.2.0",
        "systems": [{"name": "vacancy", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.84}}],
        "detect": {"signals": list(SIGNALS)},
        "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 20},
        "benchmark": {"cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
        "stop": {"generations": 3, "force_rmse_meV_A": 40.0},
    }


def build(root: Path, *, generations: int = 3, name: str = "fe-vacancy", text: str = "") -> Path:
    """Write a campaign with generations 0..`generations`; `text` is added to every free text in it."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe(name)))
    put(root / "campaign.json", {"id": f"{name}-1", "digest": "0123456789abcdef"})
    ledger = [{"event": "campaign_created", "id": f"{name}-1"}]
    for number in range(generations + 1):
        folder = root / f"generation-{number:03d}"
        if number == 0:
            put(folder / "reference" / "records.json", records(0.0))
        else:
            explore(folder, number, rng, text)
            select(folder, number)
            ledger += label(folder, number, rng, text)
        train(folder, number, rng)
        evaluate(folder, number)
        gate(folder, number, text)
        detector(root / "potentials" / FINGERPRINTS[number] / "detector", number, rng)
        ledger += costs(folder, number)
        ledger.append(
            {"event": "decision", "generation": number, "decision": DECISIONS[number], "reason": REASONS[number]}
        )
    lines = [json.dumps({**entry, "time": 1.79e9 + 40.0 * i}) for i, entry in enumerate(ledger)]
    (root / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    return root


def put(path: Path, content: object) -> None:
    """Write JSON as the store does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(content))


def arrays(path: Path, **content: np.ndarray) -> None:
    """Write an ``.npz`` without pickles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **content)


def records(off: float, *, broken: bool = False) -> list[PropertyRecord]:
    """Benchmark records that deviate from the reference by `off`; `broken`: one unconverged, one missing."""
    made = []
    for i, (key, (value, unit)) in enumerate(REFERENCE.items()):
        shift = off * (0.05 if key == "lattice_constant" else (-1) ** i)
        record = {"property": key, "case": "bcc-Fe", "value": value * (1 + shift), "unit": unit, "force_calls": 40}
        if broken and key == "vacancy_formation_energy":
            record |= {"converged": False, "reason": "relaxation stopped at its limit of 500 steps"}
        if broken and key == "c44":
            record |= {"value": None, "converged": False, "reason": "the sheared cell has no bound state"}
        made.append(PropertyRecord(**record))
    return made


def explore(folder: Path, number: int, rng: np.random.Generator, text: str) -> None:
    """Four walkers; the hottest of generation 1 leaves physics, generation 2 gives one score that is not finite."""
    for w, (temperature, strain) in enumerate([(400, -0.02), (400, 0.03), (1200, -0.02), (1200, 0.03)]):
        here = folder / "explore" / f"walker-{w:03d}"
        n = 6 if number == 1 and w == 3 else 11
        result = {"reason": "completed", "message": "", "steps_done": 100, "seconds": 14.2, "system": f"vacancy{text}"}
        if n == 6:
            result |= {"reason": "hot", "message": f"2411 K > 2000 K{text}", "steps_done": 60}
        put(
            here / "result.json", {**result, "temperature_K": temperature, "strain": strain, "group": f"g{number}-w{w}"}
        )
        hotness = temperature / 400 / number
        scores = {s: hotness * rng.lognormal(0.0, 0.4, n) * 10.0**i for i, s in enumerate(SIGNALS)}
        if number == 2 and w == 0:
            scores["soap_q"][3] = np.nan
        scores["ratio"] = np.max([v / (2.0 * 10.0**i) for i, v in enumerate(scores.values())], axis=0)
        arrays(here / "scores.npz", step=np.arange(n) * 10, **scores)
        centre = np.zeros(12)
        centre[:3] = number, temperature / 600, 40 * strain
        # the detector in use divides by its own scale: generation 2 and 3 were explored with the one of generation 1
        arrays(
            here / "vectors.npz", vectors=(centre + 0.3 * rng.standard_normal((n, 12))) / (1.0 if number == 1 else 2.0)
        )


def select(folder: Path, number: int) -> None:
    """Every third frame of each walker is chosen."""
    frames = []
    for w in range(4):
        for step in (0, 30, 60):
            frame = bulk("Fe", "bcc", a=2.8 + 0.01 * w + 0.001 * step, cubic=True)
            frame.info = {"frame_id": f"{number}{w}{step:022d}", "group": f"g{number}-w{w}", "step": step, "ratio": 1.4}
            frames.append(frame)
    (folder / "select").mkdir(parents=True)
    write_frames(folder / "select" / "selected.extxyz", frames)
    put(folder / "select" / "selection.json", {"chosen": list(range(9)), "audit": [9, 10, 11], "reasons": {}})


def label(folder: Path, number: int, rng: np.random.Generator, text: str) -> list[dict]:
    """Twelve labels, of which the last fails in generation 2; returns the ledger's entries."""
    labels = []
    for i in range(12):
        bad = number == 2 and i == 11
        labels.append(
            {
                "key": f"{number:02d}{i:02d}" + "e" * 20,
                "frame_id": f"{number:02d}{i:02d}" + "d" * 20,
                "status": "unconverged" if bad else "ok",
                "reason": f"the SCF did not converge in 100 steps{text}" if bad else "",
                "seconds": float(rng.uniform(20, 90)),
                "cpu_s": float(rng.uniform(40, 180)),
                "origin": "audit" if i > 8 else "flagged",
            }
        )
    put(folder / "label" / "labels.json", labels)
    keys = ("key", "status", "reason", "seconds", "cpu_s")
    return [{"event": "label", "generation": number, **{k: entry[k] for k in keys}} for entry in labels]


def train(folder: Path, number: int, rng: np.random.Generator) -> None:
    """Predictions on 20 test frames of 15 atoms, with the force error of this generation."""
    ref = rng.normal(0.0, 0.8, (300, 3))
    pred = ref + rng.normal(0.0, FORCE_RMSE[number] / 1000, ref.shape)
    energy = 15 * rng.normal(-4.0, 0.05, 20)
    off = 15 * (0.06 if number == 0 else 0.004) * rng.standard_normal(20)
    arrays(
        folder / "train" / "predictions_test.npz",
        forces_ref=ref,
        forces_pred=pred,
        energies_ref=energy,
        energies_pred=energy + off,
        n_atoms=np.full(20, 15),
    )
    put(folder / "train" / "result.json", {"accepted": True, "reason": "", "fingerprint": FINGERPRINTS[number]})


def evaluate(folder: Path, number: int) -> None:
    """Benchmark and test errors."""
    put(folder / "benchmark" / "records.json", records(DEVIATIONS[number], broken=number == 2))
    force = FORCE_RMSE[number]
    test = {
        "n_frames": 20,
        "n_atoms": 300,
        "energy_rmse_meV_atom": force / 4,
        "forces_rmse_meV_A": force,
        "stress_rmse_GPa": force / 100,
    }
    put(folder / "benchmark" / "evaluation.json", {"test": test, "valid": {**test, "n_frames": 6}})


def gate(folder: Path, number: int, text: str) -> None:
    """The decision; generation 2 is held, so generation 1 stays in use until generation 3."""
    decision = {"decision": DECISIONS[number], "reason": REASONS[number] + text, "numbers": {}, "generation": number}
    decision |= {"stop": number == 3, "stop_reason": f"the last of 3 generations is done{text}" if number == 3 else ""}
    promoted = FINGERPRINTS[1 if number == 2 else number]
    put(folder / "gate" / "decision.json", {**decision, "fingerprint": FINGERPRINTS[number], "promoted": promoted})


def detector(folder: Path, number: int, rng: np.random.Generator) -> None:
    """Thresholds, training and held-out scores."""
    thresholds = {s: {"value": 2.0 * 10.0**i, "quantile": 0.95, "frames": 20} for i, s in enumerate(SIGNALS)}
    put(folder / "config.json", {"thresholds": thresholds, "vector_scale": 1.0 + number})
    for name, n, scale in (("train_scores", 40 + 12 * number, 0.6), ("heldout_scores", 20, 0.9)):
        scores = {s: scale * rng.lognormal(0.0, 0.35, n) * 10.0**i for i, s in enumerate(SIGNALS)}
        arrays(folder / f"{name}.npz", **scores)


def costs(folder: Path, number: int) -> list[dict]:
    """Ledger entries of the published stages."""
    stages = (
        {"reference": 120, "train": 5, "benchmark": 90}
        if number == 0
        else {"explore": 60, "train": 300, "benchmark": 90}
    )
    return [
        {
            "event": "published",
            "stage": stage,
            "generation": number,
            "path": f"{folder.name}/{stage}",
            "seconds": seconds,
            "cpu_s": 1.8 * seconds,
            "cores": 2,
        }
        for stage, seconds in stages.items()
    ]
