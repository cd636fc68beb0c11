"""EspressoLabeler against executables that behave badly; the real pw.x is in test_label_espresso_dft.py."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from label_stubs import UPF_V2, fake_espresso, pw_output, silicon

from aldriver.core import recipe
from aldriver.core.errors import StoreError
from aldriver.label import label_frame, make_labeler
from aldriver.label.cache import label_key
from aldriver.label.espresso import EspressoLabeler
from aldriver.label.process import is_alive


def count(tmp_path) -> int:
    log = tmp_path / "runs"
    return len(log.read_text().split()) if log.exists() else 0


COUNT = "echo run >> $HERE/runs\n"


def test_a_good_run_is_a_label_with_its_provenance(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "mkdir -p scratch; echo big > scratch/wfc1.dat; cat $OUT")
    assert labeler.preflight() == []
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.ok, label.reason
    folder = tmp_path / "labels" / label.key
    names = {p.name for p in folder.iterdir()}
    assert {"espresso.pwi", "espresso.pwo", "label.json", "frame.extxyz", "manifest.json"} <= names
    assert "scratch" not in names
    assert "process.json" not in names
    p = label.provenance
    assert (p["version"], p["scf_steps"], p["retries"], p["returncode"]) == ("6.7MaX", 8, 0, 0)
    assert p["binary"] == str(tmp_path / "pw.x")
    assert len(p["binary_sha256"]) == 64
    assert p["pseudopotentials"]["Si"]["functional"] == "PBE"
    assert p["parent"]["formula"] == "Si2"
    assert spec.method == "PBE, plane waves 20 Ry, k-grid 2x2x2"


@pytest.mark.parametrize(
    ("body", "output", "status", "says", "runs"),
    [
        ("kill -SEGV $$", "", "failed", "SIGSEGV", 3),
        ("echo 'out of cheese' >&2; exit 7", "", "failed", "exit status 7): out of cheese", 3),
        ("exit 0", "", "failed", "no output of pw.x", 3),
        ("cat $OUT", pw_output(done=False), "failed", "before 'JOB DONE'", 3),
        ("cat $OUT; exit 1", pw_output(), "failed", "exit status 1", 3),
        ("head -c 3000 /dev/urandom", "", "failed", "no output of pw.x", 3),
        ("cat $OUT; exit 2", pw_output(converged=False), "unconverged", "did not converge", 3),
        ("cat $OUT", pw_output(converged=False), "unconverged", "max_scf_steps 100; also not with mixing_beta 0.35", 3),
        ("cat $OUT", pw_output(force="NaN  0.00000000  0.00000000"), "rejected", "not finite", 1),
        ("cat $OUT", pw_output(force="************  0.00000000  0.00000000"), "rejected", "not finite", 1),
        ("cat $OUT", pw_output(energy="**************"), "rejected", "energy", 1),
        ("cat $OUT", pw_output(minus="0.50000000 0.00000000 0.00000000"), "rejected", "add up to", 1),
        ("cat $OUT", pw_output(cutoff=40.0), "rejected", "cutoff of 40.0 Ry", 1),
        ("cat $OUT", pw_output() + "     MD5 check sum: " + "0" * 32 + "\n", "rejected", "another pseudopotential", 1),
        (
            "cat $OUT; exit 1",
            f"{'%' * 78}\n Error in routine setup (1):\n bad luck\n{'%' * 78}\n",
            "failed",
            "bad luck",
            1,
        ),
        ("cat $OUT; exit 1", f"{'%' * 78}\n Error in routine cdiaghg (1):\n S\n{'%' * 78}\n", "failed", "cdiaghg", 3),
        ("cat $OUT; exit 1", f"{'%' * 78}\n Error in routine davcio (10):\n I/O\n{'%' * 78}\n", "failed", "davcio", 3),
    ],
)
def test_each_way_to_fail_has_its_status_reason_and_number_of_attempts(tmp_path, body, output, status, says, runs):
    labeler, spec = fake_espresso(tmp_path, COUNT + body, output=output, retries=2)
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert (label.status, count(tmp_path)) == (status, runs), label.reason
    assert says in label.reason
    if status != "rejected":
        assert label.energy is None
        assert label.forces is None
    assert label_frame(silicon(), labeler, spec, tmp_path / "labels").cached
    assert count(tmp_path) == runs


def test_a_crash_then_success_is_a_label_that_remembers_the_crash(tmp_path):
    body = COUNT + 'if [ "$(wc -l < $HERE/runs)" -lt 3 ]; then echo half; kill -9 $$; fi\ncat $OUT'
    labeler, spec = fake_espresso(tmp_path, body, retries=2)
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.ok
    assert label.provenance["retries"] == 2
    assert [a["ending"] for a in label.provenance["attempts"]] == ["failed", "failed", "ok"]
    assert (tmp_path / "labels" / label.key / "espresso.pwo.attempt-1").read_text() == "half\n"


def test_another_mixing_is_tried_after_an_scf_that_did_not_converge_and_is_recorded(tmp_path):
    (tmp_path / "unconverged.txt").write_text(pw_output(converged=False))
    body = COUNT + "if ! grep -q mixing_beta espresso.pwi; then cat $HERE/unconverged.txt; exit 2; fi\ncat $OUT"
    labeler, spec = fake_espresso(tmp_path, body, retries=2)
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.ok, label.reason
    assert (count(tmp_path), label.provenance["retries"]) == (2, 0)
    (correction,) = label.provenance["corrections"]
    assert correction["changes"] == {"mixing_beta": 0.35}
    assert "did not converge" in correction["after"]
    folder = tmp_path / "labels" / label.key
    assert "mixing_beta = 0.35" in (folder / "espresso.pwi").read_text()
    assert "mixing_beta" not in (folder / "espresso.pwi.attempt-1").read_text()
    changed = set((folder / "espresso.pwi").read_text().splitlines()) - set(
        (folder / "espresso.pwi.attempt-1").read_text().splitlines()
    )
    assert changed == {"  mixing_beta = 0.35"}  # and nothing of the physics


def test_crashes_and_corrections_are_counted_apart(tmp_path):
    (tmp_path / "unconverged.txt").write_text(pw_output(converged=False))
    body = COUNT + (
        'case "$(wc -l < $HERE/runs)" in 1|3) kill -SEGV $$;; 2) cat $HERE/unconverged.txt; exit 2;; esac\ncat $OUT'
    )
    labeler, spec = fake_espresso(tmp_path, body, retries=2)
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.ok, label.reason
    assert (count(tmp_path), label.provenance["retries"], len(label.provenance["corrections"])) == (4, 2, 1)


def test_corrections_can_be_forgone_and_more_of_them_try_again(tmp_path):
    labeler, spec = fake_espresso(tmp_path, COUNT + "cat $OUT", output=pw_output(converged=False))
    none = replace(spec, effort=dict(spec.effort) | {"corrections": 0})
    plain = EspressoLabeler(labeler.settings, none, elements=("Si",))
    assert label_frame(silicon(), plain, none, tmp_path / "labels").status == "unconverged"
    assert count(tmp_path) == 1
    assert label_frame(silicon(), labeler, spec, tmp_path / "labels").status == "unconverged"
    assert count(tmp_path) == 1 + 3
    assert label_frame(silicon(), labeler, spec, tmp_path / "labels").cached


def test_a_hang_ends_at_the_limit_with_all_its_processes(tmp_path):
    body = "sleep 300 & echo $! $$ > $HERE/pids\nhead -4 $OUT\nwait"
    labeler, spec = fake_espresso(tmp_path, COUNT + body, timeout_s=1.0, retries=2)
    start = time.monotonic()
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert (label.status, count(tmp_path)) == ("timeout", 1)
    assert "label.timeout_s 1" in label.reason
    assert "SCF accuracy so far 2.0e-05 Ry" in label.reason
    assert time.monotonic() - start < 6
    assert not [p for p in (tmp_path / "pids").read_text().split() if is_alive(int(p))]


def test_cancel_ends_the_run_and_publishes_nothing(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "echo $$ > $HERE/pids\nexec sleep 300")
    threading.Timer(0.5, labeler.cancel).start()
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.status == "cancelled"
    assert not is_alive(int((tmp_path / "pids").read_text()))
    assert list((tmp_path / "labels").iterdir()) == []


def test_siblings_of_a_frame_that_crashes_are_labelled(tmp_path):
    bad = silicon(seed=2)
    mark = f"{bad.positions[1, 0]:.12f}"
    body = f"if grep -q -- '{mark}' espresso.pwi; then kill -SEGV $$; fi\ncat $OUT"
    labeler, spec = fake_espresso(tmp_path, body)
    frames = [silicon(seed=1), bad, silicon(seed=3)]
    assert [label_frame(f, labeler, spec, tmp_path / "labels").status for f in frames] == ["ok", "failed", "ok"]


def test_pw_x_that_finds_the_disk_full_is_not_a_failed_label(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "echo 'Fortran runtime error: No space left on device' >&2; exit 2")
    with pytest.raises(StoreError, match="no space left"):
        label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert [p for p in (tmp_path / "labels").iterdir() if not p.name.startswith(".")] == []


def test_pw_x_absent_is_a_problem_in_words_and_a_failed_label(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "cat $OUT", command="no-such-pw.x")
    (problem,) = labeler.preflight()
    assert problem.startswith("no-such-pw.x was not found on PATH: install Quantum ESPRESSO (Debian: apt-get install")
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.status == "failed"
    assert "'no-such-pw.x' could not be started" in label.reason
    found, _ = fake_espresso(tmp_path, "cat $OUT")
    assert label_key(silicon(), found, spec) != label.key  # once installed, the frame is labelled anew


def test_a_launcher_and_options_in_the_command(tmp_path):
    labeler, spec = fake_espresso(tmp_path, 'echo "$@" > $HERE/arguments\ncat $OUT')
    command = f"env A=1 {tmp_path}/pw.x -nk 2"
    labeler, spec = fake_espresso(tmp_path, 'echo "$@" > $HERE/arguments\ncat $OUT', command=command)
    assert labeler.preflight() == []
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.ok
    assert (tmp_path / "arguments").read_text() == "-nk 2 -in espresso.pwi\n"
    assert label.provenance["binary"] == str(tmp_path / "pw.x")


@pytest.mark.parametrize(
    ("changes", "elements", "says"),
    [
        ({}, ["Si", "Fe"], "no pseudopotential for Fe"),
        ({"pseudopotentials": {"Si": "absent.UPF"}}, ["Si"], "absent.UPF: No such file"),
        ({"pseudopotentials": {"Fe": "Si.UPF"}}, ["Fe"], "gives Fe the file Si.UPF, which is for Si"),
        (
            {"pseudopotentials": {"Si": "Si.UPF", "Al": "Al.UPF"}},
            ["Si", "Al"],
            "different functionals (Si: PBE, Al: LDA)",
        ),
        ({"pseudo_dir": "/no/such/folder"}, ["Si"], "/no/such/folder is not a folder"),
        ({"spin": True}, ["Si"], "starting_magnetization other than 0"),
        ({"spin": True, "smearing": "none"}, ["Si"], "spin needs a smearing"),
    ],
)
def test_preflight_says_what_is_wrong_in_plain_words(tmp_path, changes, elements, says):
    labeler, _ = fake_espresso(tmp_path, "cat $OUT", **changes)
    other = UPF_V2.replace('"Si"', '"Al"').replace("SLA  PW   PBE  PBE", "SLA  PZ   NOGX NOGC")
    (tmp_path / "pseudo" / "Al.UPF").write_text(other)
    labeler, _ = make_labeler(recipe.Label(engine="espresso", espresso=labeler.settings), elements)
    assert says in "\n".join(labeler.preflight())


def test_magnetic_elements_without_spin_are_warned_about(tmp_path):
    labeler, _ = fake_espresso(tmp_path, "cat $OUT")
    assert labeler.warnings() == []
    labeler, _ = make_labeler(recipe.Label(engine="espresso", espresso=labeler.settings), ["Si", "Fe"])
    assert "Fe: labelled without spin" in labeler.warnings()[0]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (Atoms("Si2", positions=[[0, 0, 0], [2, 0, 0]]), "periodic in three dimensions"),
        (Atoms("Au", cell=np.eye(3) * 4, pbc=True), "no pseudopotential for Au"),
        (Atoms("Si", positions=[[np.nan, 0, 0]], cell=np.eye(3) * 4, pbc=True), "not finite"),
        (Atoms(cell=np.eye(3), pbc=True), "no atoms"),
    ],
)
def test_frames_that_cannot_be_computed_are_told_before_anything_runs(tmp_path, frame, says):
    labeler, spec = fake_espresso(tmp_path, COUNT + "cat $OUT")
    label = label_frame(frame, labeler, spec, tmp_path / "labels")
    assert (label.status, count(tmp_path)) == ("failed", 0)
    assert says in label.reason


def test_the_key_follows_contents_not_places(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "cat $OUT")
    moved, moved_spec = fake_espresso(tmp_path / "elsewhere", "cat $OUT")
    assert moved_spec.digest() == spec.digest()  # the same pseudopotential in another folder
    _, slow = fake_espresso(tmp_path, "cat $OUT", timeout_s=99, max_scf_steps=7)
    assert slow.digest() == spec.digest()
    _, finer = fake_espresso(tmp_path, "cat $OUT", kpoints=(3, 3, 3))
    assert finer.digest() != spec.digest()
    (tmp_path / "pseudo" / "Si.UPF").write_text(UPF_V2 + "<!-- another -->")
    settings = recipe.Label(engine="espresso", espresso=labeler.settings, timeout_s=20, retries=0)
    assert make_labeler(settings, ["Si"])[1].digest() != spec.digest()
    assert labeler.code_id != moved.code_id  # another executable (its text names another folder)


def test_a_small_disk_that_fills_up_while_pw_x_writes(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        labeler, spec = fake_espresso(tmp_path, "head -c 1000000 /dev/zero || exit 1; cat $OUT")
        with pytest.raises(StoreError, match="no space left on the disk"):
            label_frame(silicon(), labeler, spec, disk / "labels")
        assert [p for p in (disk / "labels").iterdir() if not p.name.startswith(".")] == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
