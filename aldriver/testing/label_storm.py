"""Labels under fire: ``python -m aldriver.testing.label_storm FOLDER --frames 200``.

Many labels through FireWorks with the stand-in of VASP, some of which fail in every known way, two workers, each killed
once with SIGKILL. The report says whether every good frame has exactly one label, every bad one its reason, and no
process is left. It needs no VASP and no network.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core.frames import frame_hash, read_frames, write_frames
from aldriver.core.records import dumps
from aldriver.core.store import publish

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from aldriver.workflow.campaign import Campaign

EXPECTED = {
    "ok": ("ok", ""),
    "unconverged_once": ("ok", ""),
    "crash_once": ("ok", ""),
    "unconverged": ("unconverged", "did not converge"),
    "truncated": ("failed", "breaks off"),
    "crash": ("failed", "crashed"),
    "garbage": ("failed", "vasprun.xml"),
    "hang": ("timeout", "wrote nothing"),
}
"""What becomes of a frame under each fault: its status, and words of its reason."""
BAD = ("unconverged", "truncated", "crash", "garbage", "hang")
MENDED = ("unconverged_once", "crash_once")
_WORKER = "import sys; from aldriver.workflow import control; control.work(sys.argv[1])"


def frames_of(count: int, seed: int) -> list[Atoms]:
    """Rattled Cu3Al and Cu2Al2 cells with their species interleaved."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        atoms = bulk("Cu", a=3.75, cubic=True)
        atoms.symbols = ["Cu", "Al", "Cu", "Al"] if i % 2 else ["Al", "Cu", "Cu", "Cu"]
        atoms.positions += rng.normal(scale=0.08, size=(4, 3))
        atoms.info |= {"frame_id": frame_hash(atoms), "group": f"storm-{i}"}
        found.append(atoms)
    return found


def faults_of(count: int, share: float) -> list[str]:
    """One fault for each frame: a share of bad ones, evenly spread; some others need a second try."""
    faults = ["ok"] * count
    n_bad = round(share * count)
    for j, i in enumerate(np.linspace(0, count - 1, n_bad, dtype=int)):
        faults[i] = BAD[j % len(BAD)]
    good = [i for i, f in enumerate(faults) if f == "ok"]
    for j, i in enumerate(good[:: max(1, len(good) // max(2, count // 20))]):
        faults[i] = MENDED[j % len(MENDED)]
    return faults


def prepare(root: Path, frames: Sequence[Atoms], faults: Sequence[str], *, silence_s: float, workers: int) -> Campaign:
    """A campaign whose first generation has these frames selected and lacks their labels."""
    import yaml

    from aldriver.workflow.campaign import create

    root.mkdir(parents=True)
    table = root / "faults.json"
    table.write_text(json.dumps({f.info["frame_id"]: w for f, w in zip(frames, faults, strict=True) if w != "ok"}))
    vasp = {
        "command": f"{sys.executable} -m aldriver.testing.vasp_standin --calculator emt --faults {table}",
        "kpoints": [2, 2, 2],
        "magmoms": {"Cu": 0.6, "Al": 0.6},
        "corrections": 2,
        "silence_s": silence_s,
    }
    recipe = {
        "name": "storm",
        "potential": "chgnet:0.2.0",
        "systems": [{"name": "alloy", "bulk": {"element": "Cu", "lattice": "fcc", "a": 3.75}}],
        "explore": {"temperatures_K": [300], "steps": 10, "sample_every": 5},
        "label": {"engine": "vasp", "vasp": vasp, "budget": len(frames), "retries": 1, "timeout_s": 1800},
        "benchmark": {"cases": [{"name": "fcc-Cu", "element": "Cu", "lattice": "fcc", "a": 3.6}]},
        "stop": {"generations": 1},
        "resources": {"workers": workers, "threads": 1},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    campaign = create(root / "recipe.yaml", root / "campaign")
    with publish(campaign.stage(1, "select")) as folder:
        write_frames(folder / "selected.extxyz", list(frames))
    return campaign


def storm(campaign: Campaign, *, workers: int = 2, limit_s: float = 3600.0) -> dict[str, Any]:
    """Label all frames with two workers, each killed once after its first labels; what it cost."""
    from aldriver.workflow.generation import labels_workflow
    from aldriver.workflow.launchpad import session

    start, kills = time.monotonic(), 0
    with session() as launchpad:
        workflow = labels_workflow(campaign, 1)
        assert workflow is not None
        launchpad.add_wf(workflow)
        crew = [_worker(campaign) for _ in range(workers)]
        doomed = list(crew)
        try:
            while not campaign.is_published(1, "label"):
                if time.monotonic() - start > limit_s:
                    raise TimeoutError(f"the storm is not over after {limit_s:g} s")
                time.sleep(0.2)
                if doomed and kills < _done(campaign) and _busy(campaign, doomed[0].pid):
                    victim = doomed.pop(0)
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    kills += 1
                for i, worker in enumerate(crew):
                    if worker.poll() is not None and not campaign.is_published(1, "label"):
                        _free(launchpad, worker.pid)
                        crew[i] = _worker(campaign)
        finally:
            for worker in crew:
                worker.terminate()
            for worker in crew:
                worker.wait(60)
    return {"kills": kills, "seconds": round(time.monotonic() - start, 1)}


def _worker(campaign: Campaign) -> subprocess.Popen[bytes]:
    log = (campaign.root.parent / "workers.log").open("ab")
    with log:
        return subprocess.Popen([sys.executable, "-c", _WORKER, str(campaign.root)], stdout=log, stderr=log)


def _done(campaign: Campaign) -> int:
    return sum(1 for p in campaign.labels.glob("*/label.json") if not p.parent.name.startswith("."))


def _busy(campaign: Campaign, worker: int) -> bool:
    """Whether an engine of this worker runs: it is to be killed in the middle of a label."""
    for record in campaign.labels.glob(".tmp-*/process.json"):
        try:
            data = json.loads(record.read_text())
        except (OSError, ValueError):
            continue
        if data["owner_pid"] == worker and data["pid"]:
            return True
    return False


def _free(launchpad: LaunchPad, worker: int) -> None:
    """Put back the task of a worker that is gone."""
    query = {"state": {"$in": ["RUNNING", "RESERVED"]}, "fworker.name": {"$regex": f" {worker}$"}}
    for launch in launchpad.launches.find(query, {"fw_id": 1}):
        launchpad.rerun_fw(launch["fw_id"])


def report(campaign: Campaign, frames: Sequence[Atoms], faults: Sequence[str]) -> dict[str, Any]:
    """What became of each frame, and what is wrong with that (``problems``; empty is the point of it all)."""
    problems, fates = [], Counter[str]()
    found: dict[str, list[dict[str, Any]]] = {}
    for path in campaign.labels.glob("*/label.json"):
        if not path.parent.name.startswith("."):
            label = json.loads(path.read_text())
            found.setdefault(label["provenance"]["parent"]["frame_id"], []).append(label)
    for i, (frame, fault) in enumerate(zip(frames, faults, strict=True)):
        labels = found.get(frame.info["frame_id"], [])
        if len(labels) != 1:
            problems.append(f"frame {i} ({fault}) has {len(labels)} labels")
            continue
        fates[f"{fault}: {labels[0]['status']}"] += 1
        status, words = EXPECTED[fault]
        if labels[0]["status"] != status or words not in labels[0]["reason"]:
            problems.append(f"frame {i} ({fault}) ended as {labels[0]['status']}: {labels[0]['reason']}")
        if labels[0]["provenance"].get("stand_in") is not True:
            problems.append(f"frame {i} does not say that it was made by the stand-in")
    good = sum(EXPECTED[f][0] == "ok" for f in faults)
    dataset = read_frames(campaign.stage(1, "label") / "dataset.extxyz", labelled=True)
    if len(dataset) != good:
        problems.append(f"the dataset holds {len(dataset)} frames instead of {good}")
    problems += [f"'{f.info['level']}' does not say stand-in" for f in dataset if "stand-in" not in f.info["level"]]
    left = processes_below(campaign.root)
    problems += [f"process {pid} is left" for pid in left]
    problems += [f"{p.name} is left" for p in campaign.labels.glob(".tmp-*")]
    cpu = [json.loads(p.read_text())["cpu_s"] for p in campaign.labels.glob("*/label.json")]
    return {
        "frames": len(frames),
        "good": good,
        "fates": dict(sorted(fates.items())),
        "cpu_s_per_label": round(float(np.mean(cpu)), 2) if cpu else None,
        "problems": problems,
    }


def processes_below(folder: Path) -> list[int]:
    """Living processes that work in a folder or below it."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            where = Path(f"/proc/{entry.name}/cwd").readlink()
        except OSError:
            continue
        if where.is_relative_to(folder) and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 when there are problems."""
    parser = argparse.ArgumentParser(prog="label_storm", description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.2, help="of frames whose run fails")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--silence", type=float, default=30.0, help="seconds until a run that hangs is ended")
    args = parser.parse_args(argv)
    frames, faults = frames_of(args.frames, args.seed), faults_of(args.frames, args.share)
    campaign = prepare(args.folder.resolve(), frames, faults, silence_s=args.silence, workers=2)
    cost = storm(campaign, limit_s=4 * 3600)
    result = cost | report(campaign, frames, faults)
    print(dumps(result))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
