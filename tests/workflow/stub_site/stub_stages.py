"""Stages that publish the right files after a moment of sleep, and write down each time they are done."""

import json
import os
import signal
import time

from aldriver.core.errors import AldriverError
from aldriver.core.frames import frame_hash, write_frames
from aldriver.core.store import is_published, publish
from aldriver.core.systems import build_system
from aldriver.workflow.stages import publishing

LABELS = 3


def setting(campaign, name):
    """What a test asks of the stages, by a file in the campaign."""
    path = campaign.root / f".stub-{name}"
    return path.read_text() if path.exists() else ""


def count(campaign, what):
    fd = os.open(campaign.root / ".stub-counts", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what}\n".encode())
    os.close(fd)


def nap(campaign):
    time.sleep(float(setting(campaign, "nap") or 0.05))


def act(campaign, name, g, index):
    """Misbehave as the test asks."""
    wanted = setting(campaign, "misbehave").split()
    if wanted[:1] == [name] and (int(wanted[2]) == index if len(wanted) > 2 else True):
        if wanted[1] == "raise-once":
            (campaign.root / ".stub-misbehave").unlink()
        if wanted[1].startswith("raise"):
            raise AldriverError(f"{name} does not feel well")
        if wanted[1] == "die-once":
            (campaign.root / ".stub-misbehave").unlink()
        if wanted[1].startswith("die"):
            count(campaign, f"died {name} {g} {index}")
            os.kill(os.getpid(), signal.SIGKILL)


def simple(name, stage, files):
    def do(campaign, g, index=0):
        if campaign.is_published(g, stage):
            return
        with publishing(campaign, name, g, campaign.stage(g, stage)) as (tmp, _):
            act(campaign, name, g, index)
            nap(campaign)
            for file, content in files(campaign, g).items():
                (tmp / file).write_text(json.dumps(content))
        count(campaign, f"{name} {g}")

    return do


def _trained(campaign, g):
    folder = campaign.potential(f"fp{g}")
    if not is_published(folder):
        with publish(folder) as tmp:
            (tmp / "card.json").write_text(json.dumps({"generation": g}))
    return {"result.json": {"accepted": True, "reason": "", "fingerprint": f"fp{g}", "e0_shift": None}}


def _measured(campaign, g):
    test = {"forces_rmse_meV_A": 100.0 / (g + 1)}
    return {"records.json": [], "evaluation.json": {"test": test, "valid": None, "promoted_valid": None}}


reference = simple("reference", "reference", lambda c, g: {"records.json": []})
baseline = simple("baseline", "train", _trained)
train = simple("train", "train", _trained)
benchmark = simple("benchmark", "benchmark", _measured)


def relax(campaign, g, index):
    final = campaign.helper(g, index)
    if is_published(final):
        return
    act(campaign, "relax", g, index)
    with publishing(campaign, "relax", g, final, index=index) as (tmp, _):
        nap(campaign)
        (tmp / "made.json").write_text("{}")
    count(campaign, f"relax {g} {index}")


def explore(campaign, g, index):
    final = campaign.walker(g, index)
    if is_published(final):
        return
    with publishing(campaign, "explore", g, final, index=index) as (tmp, _):
        act(campaign, "explore", g, index)
        nap(campaign)
        (tmp / "result.json").write_text(json.dumps({"reason": "completed", "message": ""}))
    count(campaign, f"explore {g} {index}")


def _frames(campaign, g):
    frames = []
    for i in range(LABELS):
        atoms = build_system(campaign.recipe.systems[0])
        atoms.positions[0, 0] += 0.01 * g + 0.001 * i
        atoms.info = {"frame_id": frame_hash(atoms), "group": f"g{g}-{i}", "origin": "flagged", "ratio": 2.0}
        frames.append(atoms)
    return frames


def select(campaign, g, index=0):
    if campaign.is_published(g, "select"):
        return
    with publishing(campaign, "select", g, campaign.stage(g, "select")) as (tmp, _):
        nap(campaign)
        write_frames(tmp / "selected.extxyz", _frames(campaign, g))
        (tmp / "selection.json").write_text(json.dumps({"n_selected": LABELS}))
    count(campaign, f"select {g}")


def _key(campaign, g, index):
    return f"{_frames(campaign, g)[index].info['frame_id']}-stub"


def label(campaign, g, index):
    act(campaign, "label", g, index)
    key = _key(campaign, g, index)
    if not is_published(campaign.labels / key):
        campaign.labels.mkdir(exist_ok=True)
        count(campaign, f"label-start {key}")
        with publish(campaign.labels / key) as tmp:
            nap(campaign)
            (tmp / "label.json").write_text(json.dumps({"status": "ok", "key": key}))
        count(campaign, f"label {key}")
    if not campaign.ledger.find("label", key=key):
        campaign.ledger.append(
            "label", key=key, status="ok", reason="", generation=g, index=index, seconds=0.1, cpu_s=0.1
        )


def collect(campaign, g, index=0):
    if campaign.is_published(g, "label"):
        return
    with publishing(campaign, "collect", g, campaign.stage(g, "label")) as (tmp, _):
        keys = [_key(campaign, g, i) for i in range(LABELS)]
        fates = [{"key": k, "status": "ok" if is_published(campaign.labels / k) else "failed"} for k in keys]
        (tmp / "labels.json").write_text(json.dumps(fates))
    count(campaign, f"collect {g}")


def gate(campaign, g, index=0):
    if campaign.is_published(g, "gate"):
        return
    last = campaign.recipe.stop.generations
    decision = {
        "generation": g,
        "decision": "promote",
        "reason": "better",
        "stop": g >= last,
        "stop_reason": f"all {last} generations are done" if g >= last else "",
        "fingerprint": f"fp{g}",
        "promoted": f"fp{g}",
    }
    with publishing(campaign, "gate", g, campaign.stage(g, "gate")) as (tmp, _):
        nap(campaign)
        (tmp / "decision.json").write_text(json.dumps(decision))
    campaign.ledger.append("decision", **decision)
    count(campaign, f"gate {g}")
