"""The user's configuration file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aldriver.core import config
from aldriver.core.errors import InputError

KEY = "backends.sevennet.python"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "some" / "aldriver.toml"
    monkeypatch.setenv("ALDRIVER_CONFIG", str(path))
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("ALDRIVER_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.config_path() == tmp_path / "aldriver.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.config_path() == tmp_path / ".config" / "aldriver.toml"
    monkeypatch.setenv("ALDRIVER_CONFIG", str(tmp_path / "mine.toml"))
    assert config.config_path() == tmp_path / "mine.toml"


def test_what_is_set_is_found(file):
    assert config.set_value(KEY, sys.executable)
    assert config.backend_python("sevennet") == Path(sys.executable)
    assert config.required_python("sevennet") == Path(sys.executable)


def test_nothing_configured_says_what_to_run(file, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "__file__", str(tmp_path / "aldriver" / "core" / "config.py"))
    assert config.backend_python("sevennet") is None
    with pytest.raises(InputError, match=r"make setup-sevennet.*config set backends\.sevennet\.python"):
        config.required_python("sevennet")


def test_the_environment_beside_a_checkout_is_found(file, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "__file__", str(tmp_path / "aldriver" / "core" / "config.py"))
    python = tmp_path / ".venv-sevennet" / "bin" / "python"
    write(python, "")
    assert config.backend_python("sevennet") == python
    config.set_value(KEY, sys.executable)  # what is configured goes first
    assert config.backend_python("sevennet") == Path(sys.executable)


@pytest.mark.parametrize("path", ["/no/such/python", "relative/python"])
def test_a_python_that_is_not_there(file, path):
    write(file, f'[backends.sevennet]\npython = "{path}"\n')
    with pytest.raises(InputError, match=rf"backends\.sevennet\.python = '{path}'.*make setup-sevennet"):
        config.backend_python("sevennet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# mine\n\n[backend.sevennet]\n", "line 3: unknown key 'backend'; allowed: backends"),
        ("[backends.sevenet]\npython = 'x'\n", "line 1: unknown key 'backends.sevenet'"),
        ("[backends.sevennet]\n\npythno = 'x'\n", "line 3: unknown key 'backends.sevennet.pythno'"),
        ("[backends.sevennet]\npython = 3\n", "line 2: .* must be a string"),
        ("backends = 3\n", "line 1: backends must be a table"),
        ("[backends.sevennet\n", "not valid TOML"),
    ],
)
def test_mistakes_are_named_with_their_line(file, text, message):
    write(file, text)
    with pytest.raises(InputError, match=message):
        config.backend_python("sevennet")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\n",
        "[backends.sevennet] # own environment\npython = '/old' # here\n",
        "[backends.mace]\npython = '/m'\n\n[backends.sevennet]\n",
        "[backends.sevennet]\n\n[backends.mace]\npython = '/m'\n",
    ],
)
def test_setting_keeps_the_rest(file, text):
    write(file, text)
    before = config._load(file).get("mace")
    assert config.set_value(KEY, '/a "b" \\c')
    after = config._load(file)
    assert after["sevennet"] == {"python": '/a "b" \\c'} and after.get("mace") == before
    assert [line for line in file.read_text().splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]


def test_a_file_that_cannot_be_changed_safely_stays(file):
    text = 'backends = {sevennet = {python = "/a"}}\n'
    write(file, text)
    with pytest.raises(InputError, match="cannot be changed safely"):
        config.set_value(KEY, "/b")
    assert file.read_text() == text


def test_unknown_keys_are_not_written(file):
    with pytest.raises(InputError, match=r"unknown key 'backends\.sevennet\.pyton'"):
        config.set_value("backends.sevennet.pyton", "/b")
    assert not file.exists()


def test_the_command(file):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "aldriver.core.config", *words], text=True, capture_output=True)

    assert run("path").stdout.strip() == str(file)
    assert run("set", KEY, "/a").returncode == 0
    kept = run("set", "--keep", KEY, "/b")
    assert kept.returncode == 0 and "left alone" in kept.stdout and 'python = "/b"' in kept.stdout
    assert config._load(file)["sevennet"]["python"] == "/a"
    wrong = run("set", "nonsense", "/b")
    assert wrong.returncode == 2 and "unknown key" in wrong.stderr
