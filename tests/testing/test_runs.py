"""Studies of many runs: resumed, shared, gathered, shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aldriver.core.errors import InputError
from aldriver.testing import runs


@pytest.fixture
def study():
    computed = []

    def compute(name, data, work):
        computed.append(name)
        return {"value": len(name), "data": str(data)}

    made = runs.Study(
        name="example",
        what="an example",
        constants={"steps": 3},
        runs=("a", "bb", "ccc"),
        compute=compute,
        summary=lambda facts: str(facts["value"]),
        sections=lambda found: {"all": runs.table(["name"], [[run["name"]] for run in found])},
    )
    return made, computed


def call(study, folder, *more):
    return runs.main(study, ["--work", str(folder / "work"), "--results", str(folder / "example.json"), *more])


def test_each_run_is_computed_once_whatever_the_parts_and_results_alone_are_enough(study, tmp_path, capsys):
    made, computed = study
    call(made, tmp_path, "--part", "2/2")
    assert computed == ["bb"]
    call(made, tmp_path, "--part", "1/2")
    call(made, tmp_path)
    assert computed == ["bb", "a", "ccc"]
    results = json.loads((tmp_path / "example.json").read_text())
    assert [run["name"] for run in results["runs"]] == ["a", "bb", "ccc"] and results["settings"] == {"steps": 3}
    for path in (tmp_path / "work").iterdir():
        path.unlink()
    call(made, tmp_path)
    assert len(computed) == 3
    assert "3 of 3 runs" in capsys.readouterr().out


def test_data_are_asked_for_only_where_something_is_to_be_computed(study, tmp_path, capsys):
    made, computed = study
    made = replace(made, needs_data=True, printed=("all",))
    with pytest.raises(InputError, match="3 of 3 runs are not computed yet"):
        call(made, tmp_path)
    call(made, tmp_path, "--data", "there")
    capsys.readouterr()
    call(made, tmp_path)
    assert len(computed) == 3 and "| ccc |" in capsys.readouterr().out


def test_results_of_other_constants_are_not_taken_over(study, tmp_path):
    made, computed = study
    call(made, tmp_path, "--only", "bb")
    other = replace(made, constants={"steps": 4})
    assert runs.finished(other, tmp_path / "work", tmp_path / "example.json") == {}
    call(other, tmp_path, "--only", "bb")
    assert computed == ["bb", "bb"]


def test_a_page_is_filled_between_its_markers_again_and_again(study, tmp_path):
    made, _ = study
    page = tmp_path / "example.md"
    page.write_text("before\n<!-- all -->\nold\n<!-- /all -->\nafter\n")
    call(made, tmp_path)
    once = page.read_text()
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "| ccc |" in once and "old" not in once
    call(made, tmp_path)
    assert page.read_text() == once
    with pytest.raises(InputError, match="no markers"):
        runs.fill(page, {"nowhere": ""})


@pytest.mark.parametrize("part", ["0/2", "3/2", "half", "1"])
def test_an_impossible_part_is_refused(part):
    with pytest.raises(InputError, match="--part"):
        runs.shared(["a"], part)


def test_parts_hold_every_run_once():
    names = [str(i) for i in range(7)]
    assert sorted(name for k in (1, 2, 3) for name in runs.shared(names, f"{k}/3")) == names
