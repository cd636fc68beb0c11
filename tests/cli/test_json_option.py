"""``--json`` alone means stdout, with a file means that file, and never overwrites what a user surely did not mean."""

from __future__ import annotations

import pytest

from aldriver.cli.common import emit, json_argv
from aldriver.core.errors import InputError


def test_bare_json_goes_to_stdout():
    assert json_argv(["schema", "--json"]) == ["schema", "--json", "-"]
    assert json_argv(["status", "--json", "--help"]) == ["status", "--json", "-", "--help"]
    assert json_argv(["status", "--json", "-"]) == ["status", "--json", "-"]


def test_json_takes_a_file(tmp_path):
    out = str(tmp_path / "OUT")
    assert json_argv(["benchmark", "eam:x", "--json", out]) == ["benchmark", "eam:x", "--json", out]
    (tmp_path / "old.json").write_text("{}")
    old = str(tmp_path / "old.json")
    assert json_argv(["status", "--json", old]) == ["status", "--json", old]


def test_json_before_a_directory_or_a_recipe_is_bare(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x")
    assert json_argv(["status", "--json", str(tmp_path)]) == ["status", "--json", "-", str(tmp_path)]
    assert json_argv(["run", "--json", str(recipe)]) == ["run", "--json", "-", str(recipe)]


def test_emit_writes_whole_files_and_names_missing_folders(tmp_path, capsys):
    assert emit({"a": 1}, None) is False
    assert emit({"a": 1}, "-") is True
    assert capsys.readouterr().out == '{\n  "a": 1\n}\n'
    emit({"b": float("nan")}, str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text() == '{\n  "b": null\n}\n'
    with pytest.raises(InputError, match="folder .* does not exist"):
        emit({}, str(tmp_path / "no" / "out.json"))
