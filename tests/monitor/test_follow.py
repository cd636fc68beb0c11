"""Following somebody else's run: verdicts, outputs and exit codes; exactly once whatever dies when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from monitor_helpers import dump_text, shaken, walk

from aldriver.cli.main import main
from aldriver.core.frames import frame_hash, read_frames
from aldriver.monitor import journal as journal_module
from aldriver.monitor.follow import follow
from aldriver.monitor.sources import open_source

WILD = (3, 4, 7)


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def frames():
    return walk(9, wild=WILD)


@pytest.fixture
def dump(tmp_path, frames):
    path = tmp_path / "run.lammpstrj"
    path.write_bytes(dump_text(frames, order=np.random.default_rng(1).permutation(16)))
    return path


def test_a_run_that_leaves_the_domain(dump, bundle, tmp_path, frames, looks_of, capsys):
    """Exit code 3, JSON lines, a figure, the frames with reasons, the worst atoms by name."""
    out = tmp_path / "out"
    assert call("monitor", "follow", dump, "--bundle", bundle, "--out", out, "--elements", "Fe", "--once") == 3
    looks = looks_of(out)
    assert [look["step"] for look in looks] == [10 * k for k in range(9)]
    assert [k for k, look in enumerate(looks) if look["verdict"] != "known"] == list(WILD)
    for k, look in enumerate(looks):
        assert (look["ratio"] > 1) == (k in WILD) and look["n_atoms"] == 16
        assert look["frame_id"] == frame_hash(frames[k])
        worst = look["atoms"]
        assert worst[0]["ratio"] == pytest.approx(look["ratio"]) and worst[0]["element"] == "Fe"
        assert [a["ratio"] for a in worst] == sorted((a["ratio"] for a in worst), reverse=True)
    flagged = read_frames(out / "flagged.extxyz")
    assert [a.info["step"] for a in flagged] == [30, 40, 70] and all("threshold" in a.info["reason"] for a in flagged)
    assert np.allclose(flagged[0].positions, frames[3].positions)
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["frames"], summary["flagged"], summary["alarms"], summary["inside"]) == (9, 3, 2, False)
    printed = capsys.readouterr()
    assert "did not stay inside" in printed.out and "alarm step 30" in printed.err
    assert f"Fe{looks[3]['atoms'][0]['index']}" in printed.err  # the least known atom by name


def test_a_run_that_stays_inside_and_goes_on(dump, bundle, tmp_path, frames, looks_of):
    dump.write_bytes(dump_text(frames[:3]))
    out, json_to = tmp_path / "out", tmp_path / "result.json"
    args = ("monitor", "follow", dump, "--bundle", bundle, "--out", out, "--elements", "Fe", "--idle", "0")
    assert call(*args, "--json", json_to) == 0
    assert json.loads(json_to.read_text())["inside"] is True
    with dump.open("ab") as file:
        file.write(dump_text(frames[8:], first=80))
    assert call(*args) == 0
    assert [look["step"] for look in looks_of(out)] == [0, 10, 20, 80]
    assert not (out / "flagged.extxyz").read_text()


def test_patience_and_each_second_frame(dump, recorder, looks_of):
    """Two frames in a row outside are an alarm, one is not; every other frame never shows two."""
    one = recorder("one", patience=2)
    follow(open_source(str(dump), ["Fe"]), one, once=True)
    assert (one.watch.alarms, one.watch.verdicts["flagged"]) == (1, 3)
    two = recorder("two", patience=2)
    follow(open_source(str(dump), ["Fe"]), two, every=2, once=True)
    assert two.watch.alarms == 0 and [look["step"] for look in looks_of(two.journal.out)] == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("crash", range(1, 12, 2))
def test_a_death_between_any_two_writes_loses_and_repeats_nothing(dump, recorder, looks_of, monkeypatch, crash):
    """Lines are there and the state is not: they are cut off, and their frames judged again."""
    whole = recorder("whole")
    follow(open_source(str(dump), ["Fe"]), whole, once=True)
    calls, write = [], journal_module.atomic_write

    def dying(path, data):
        calls.append(path)
        if len(calls) == crash:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(journal_module, "atomic_write", dying)
    for _ in range(2):
        again = recorder("again")
        source = open_source(str(dump), ["Fe"], again.journal.state.get("position"))
        try:
            follow(source, again, once=True)
        except KeyboardInterrupt:
            continue
    assert looks_of(again.journal.out) == looks_of(whole.journal.out)
    name = "flagged.extxyz"
    assert (again.journal.out / name).read_text() == (whole.journal.out / name).read_text()
    assert again.watch.summary() == whole.watch.summary()


def test_killed_while_the_dump_grows(bundle, tmp_path, frames, looks_of):
    dump, out = tmp_path / "run.lammpstrj", tmp_path / "out"
    data = dump_text(frames)
    half = len(dump_text(frames[:5])) + 321
    dump.write_bytes(data[:half])
    args = ["monitor", "follow", str(dump), "--bundle", str(bundle), "--out", str(out), "--elements", "Fe"]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from aldriver.cli.main import main; main(sys.argv[1:])", *args],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 300
        while not (out / "state.json").is_file() or json.loads((out / "state.json").read_text())["seen"] < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    dump.write_bytes(data)
    assert call(*args, "--once") == 3
    assert [look["step"] for look in looks_of(out)] == [10 * k for k in range(9)]
    assert [a.info["step"] for a in read_frames(out / "flagged.extxyz")] == [30, 40, 70]


def test_remarks_restart_lost_atoms_and_half_a_frame(tmp_path, recorder, looks_of):
    """A run that is restarted from an earlier step, loses an atom, and is still writing."""
    short = shaken(0.05, seed=5)
    del short[3]
    text = (
        dump_text(walk(3))
        + dump_text(walk(2), first=10)
        + dump_text([short], first=30)
        + dump_text(walk(1), first=40)[:-20]
    )
    dump = tmp_path / "dump"
    dump.write_bytes(text)
    one = recorder()
    follow(open_source(str(dump), ["Fe"]), one, once=True)
    notes = [note["text"] for note in looks_of(one.journal.out, "note")]
    assert len(notes) == 2 and "goes back from 20 to 10" in notes[0] and "mid-frame" in notes[1]
    last = looks_of(one.journal.out)[-1]
    assert (
        last["verdict"] == "quarantined"
        and last["reason"].startswith("1 of 16 atoms are lost")
        and one.watch.alarms == 1
    )


def test_a_new_element_and_broken_positions_are_outside(tmp_path, recorder, looks_of):
    dump = tmp_path / "dump"
    strange = dump_text(walk(1), columns="id element x y z", first=10).replace(b"\n1 Fe ", b"\n1 Cu ")
    broken = dump_text(walk(1), columns="id element x y z", first=20)
    at = broken.index(b"\n1 Fe ") + 6
    broken = broken[:at] + b"nan" + broken[broken.index(b" ", at) :]
    dump.write_bytes(dump_text(walk(1), columns="id element x y z") + strange + broken)
    one = recorder()
    follow(open_source(str(dump)), one, once=True)
    known, new, nan = looks_of(one.journal.out)
    assert known["verdict"] == "known"
    assert (
        new["verdict"] == "flagged"
        and new["reason"] == "Cu is new to the detector"
        and new["atoms"][0]
        == {
            "index": 0,
            "element": "Cu",
            "ratio": None,
        }
    )
    assert nan["verdict"] == "quarantined" and "not finite" in nan["reason"]
    assert len(read_frames(one.journal.out / "flagged.extxyz")) == 1  # what is not finite cannot be kept


BAD = {
    "no potential": (2, "no bundle"),
    "no detector": (2, "without a detector"),
    "another detector": (2, "belongs to the potential"),
    "unknown type": (2, "atom type 2 has no element"),
    "no element": (2, "name the element of each atom type"),
    "another run": (2, "name another --out"),
    "no campaign": (2, "not a campaign"),
    "no webhook": (2, "http://"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_and_nothing_is_lost(what, dump, bundle, tmp_path, frames, capsys, looks_of, pair):
    import aldriver
    from aldriver.potentials.bundle import save_bundle

    out, options = tmp_path / "out", ["--elements", "Fe"]
    if what == "no potential":
        bundle = tmp_path
    elif what == "no detector":
        bundle = save_bundle(pair[0], tmp_path / "bare")
    elif what == "another detector":
        bundle = save_bundle(aldriver.load("eam:AlFe_mm.eam.fs"), tmp_path / "other")
        pair[1].save(bundle / "detector")
    elif what == "unknown type":
        dump.write_bytes(dump_text(frames[:2]) + dump_text(frames[2:3], first=20).replace(b"\n1 1 ", b"\n1 2 "))
    elif what == "no element":
        options = []
    elif what == "another run":
        call("monitor", "follow", dump, "--bundle", bundle, "--out", out, *options, "--once")
        dump = dump.rename(tmp_path / "other.lammpstrj")
    elif what == "no campaign":
        options += ["--feed", tmp_path]
    elif what == "no webhook":
        options += ["--webhook", "ftp://secret@host"]
    code, message = BAD[what]
    capsys.readouterr()
    assert call("monitor", "follow", dump, "--bundle", bundle, "--out", out, *options, "--once") == code
    said = capsys.readouterr().err
    assert message in said and "secret" not in said
    if what == "unknown type":
        assert [look["step"] for look in looks_of(out)] == [0, 10]
        dump.write_bytes(dump_text(frames[:3]))
        assert call("monitor", "follow", dump, "--bundle", bundle, "--out", out, *options, "--once") == 0
        assert [look["step"] for look in looks_of(out)] == [0, 10, 20]
