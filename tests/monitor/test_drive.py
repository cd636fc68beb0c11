"""A user's own LAMMPS input with the guard: the run is what it was, and what is wrong is said in plain words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from aldriver.cli.main import main
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import read_frames
from aldriver.monitor.drive import drive
from aldriver.monitor.live import LiveGuard
from aldriver.potentials.lammps_library import new_lammps, potential_file

HEAD = """\
units metal
atom_style atomic
atom_modify map array sort 0 0.0
boundary p p p
read_data structure.data
{pair}
neighbor 1.0 bin
timestep 0.002
velocity all create ${{T}} 1 mom yes
fix md all nvt temp ${{T}} ${{T}} 0.1
thermo_style custom step temp pe dt
thermo 5
"""
COUPLED = "pair_style zero 2.0 nocoeff\npair_coeff * *\nfix potential all external pf/callback 1 1"
NATIVE = "pair_style eam/fs\npair_coeff * * Fe_mm.eam.fs Fe"
TAIL = "run 20\nrun 20 # and on\nwrite_data end.data nocoeff\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: structure, potential file, two inputs."""
    write(
        tmp_path / "structure.data",
        bulk("Fe", "bcc", a=2.855, cubic=True) * (3, 3, 3),
        format="lammps-data",
        masses=True,
    )
    (tmp_path / "Fe_mm.eam.fs").write_bytes(potential_file("Fe_mm.eam.fs").read_bytes())
    (tmp_path / "in.coupled").write_text(HEAD.format(pair=COUPLED) + TAIL)
    (tmp_path / "in.native").write_text(HEAD.format(pair=NATIVE) + TAIL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def driven(folder, pair, recorder):
    """Run an input with a guard; what came of it, and the guard."""

    def run(name, *, action="log", temperature=300, **options):
        guard = LiveGuard(recorder(f"{name}-{action}-{temperature}", resume=False), action=action)
        options.setdefault("variables", {"T": str(temperature)})
        return drive(folder / name, pair[0], guard, log=folder / "log.lammps", **options), guard

    return run


def end_of(folder):
    return read(folder / "end.data", format="lammps-data").positions


@pytest.mark.parametrize("kind", ["native", "coupled"])
def test_the_run_is_the_one_it_would_have_been(kind, folder, driven):
    """With the guard beside it, or the same potential behind fix external, the atoms go where LAMMPS alone moves them."""
    lmp = new_lammps()
    lmp.commands_string("variable T index 300\n" + (folder / "in.native").read_text())
    lmp.close()
    alone = end_of(folder)
    (folder / "end.data").unlink()
    done, guard = driven(f"in.{kind}")
    assert np.allclose(end_of(folder), alone, atol=1e-12 if kind == "native" else 1e-6)
    assert (done.steps, done.native, done.stopped) == (40, kind == "native", "")
    assert guard.recorder.watch.verdicts["known"] >= 2 and guard.recorder.watch.alarms == 0


@pytest.mark.parametrize("kind", ["native", "coupled"])
def test_an_alarm_ends_the_run_but_not_the_input(kind, folder, driven):
    """Runs that are left are skipped, `write_data` is not; the frame is in the queue."""
    done, guard = driven(f"in.{kind}", action="stop", temperature=6000)
    assert done.stopped.startswith(f"step {guard.recorder.latest.step}: the frame is flagged")
    assert done.steps <= guard.recorder.latest.step + 10 < 40
    assert end_of(folder).shape == (54, 3)
    (flagged,) = read_frames(guard.recorder.journal.out / "flagged.extxyz")
    assert flagged.info["step"] == guard.recorder.latest.step and set(flagged.symbols) == {"Fe"}


def test_slow_halves_the_time_step_while_the_run_is_outside(folder, driven, monkeypatch):
    monkeypatch.setattr("aldriver.monitor.live.CLOSE_STEPS", 8)
    (folder / "in.coupled").write_text(HEAD.format(pair=COUPLED) + "run 40\n")
    _, guard = driven("in.coupled", action="slow", temperature=300)
    assert guard.recorder.watch.alarms == 0
    calm = time_steps(folder)
    _, guard = driven("in.coupled", action="slow", temperature=6000)
    assert guard.recorder.watch.alarms >= 1
    slow = time_steps(folder)
    assert set(calm.values()) == {0.002}
    assert slow[0] == 0.002 and slow[40] == 0.001


def time_steps(folder) -> dict[int, float]:
    rows = [line.split() for line in (folder / "log.lammps").read_text().splitlines()]
    return {int(row[0]): float(row[3]) for row in rows if len(row) == 4 and row[0].isdigit()}


def test_the_command(folder, bundle, capsys):
    """Exit code 0 inside, 3 outside; a second run does not write over the first."""

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            main(["monitor", "run", "in.coupled", "--bundle", str(bundle), *args])
        return int(ended.value.code or 0)

    assert call("--out", "calm", "--var", "T=300", "--json", "calm.json") == 0
    result = json.loads((folder / "calm.json").read_text())
    assert result["inside"] and result["steps"] == 40 and not result["native"] and result["outcome"] == "quantile"
    assert (folder / "calm" / "log.lammps").is_file() and (folder / "calm" / "scores.png").is_file()
    assert call("--out", "hot", "--var", "T=6000", "--action", "stop") == 3
    assert "the run was stopped" in capsys.readouterr().out
    assert call("--out", "hot", "--var", "T=300") == 2
    assert call("--out", "new", "--var", "T") == 2 and call("--out", "new", "--bundle", "nothing") == 2


def broken(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


BAD = {
    "no run": ("in.native", TAIL, 'if "1 == 1" then "run 20"\n', InputError, "a line that begins with `run`"),
    "cleared": ("in.native", "run 20 # and on", "clear", InputError, "`clear` would remove the guard"),
    "units": ("in.coupled", "units metal", "units electron", InputError, "units 'electron'"),
    "package": ("in.native", "pair_style eam/fs", "pair_style pace", AldriverError, "has the packages"),
    "words": ("in.native", "thermo 5", "termo 5", AldriverError, "Unknown command: termo 5"),
    "numbers": ("in.coupled", "units metal", "units real", InputError, "write `units metal`"),
}


@pytest.mark.parametrize("what", BAD)
def test_inputs_that_cannot_be_guarded_say_why(what, folder, driven):
    name, old, new, error, message = BAD[what]
    broken(folder, name, old, new)
    with pytest.raises(error, match=message):
        driven(name)


def test_elements_by_mass_by_name_or_not_at_all(folder, driven):
    broken(folder, "in.native", "neighbor 1.0 bin", "mass 1 50.0\nneighbor 1.0 bin")
    with pytest.raises(InputError, match="has mass 50, which is no element's"):
        driven("in.native")
    _, guard = driven("in.native", elements=["Fe"], temperature=301)
    assert guard.recorder.watch.verdicts["known"] >= 2
    with pytest.raises(InputError, match="1 atom types, the elements given are 'Qq'"):
        driven("in.native", elements=["Qq"], temperature=302)
    with pytest.raises(InputError, match="does not know the element Cu"):
        driven("in.coupled", elements=["Cu"], temperature=303)
    broken(folder, "in.native", "read_data", 'variable elements index "Fe"\nread_data')
    driven("in.native", temperature=304)


def test_lost_atoms_end_the_run_with_the_words_of_lammps(folder, driven, looks_of):
    """What was seen before stays on the disk."""
    broken(folder, "in.native", "timestep 0.002", "timestep 0.05")
    broken(folder, "in.native", "boundary p p p", "boundary p p f")
    with pytest.raises(AldriverError, match="(?i)lost atoms|non-numeric"):
        driven("in.native", temperature=20000)
    assert looks_of(folder / "in.native-log-20000")


def test_a_lammps_without_fix_external(driven, monkeypatch):
    from lammps import lammps

    monkeypatch.setattr(lammps, "has_style", lambda self, category, name: False)
    with pytest.raises(AldriverError, match="no fix external .package MISC."):
        driven("in.native")


def test_an_error_of_the_guard_comes_out_unchanged(driven, folder, pair, recorder, monkeypatch):
    def fails(self, step, atoms, features=None):
        raise OSError("the disk is gone")

    monkeypatch.setattr(LiveGuard, "look", fails)
    for name in ("in.native", "in.coupled"):
        with pytest.raises(OSError, match="the disk is gone"):
            driven(name)
