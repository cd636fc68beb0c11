import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aldriver.core.errors import AldriverError, InputError
from aldriver.workflow import launchpad

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path, **content):
    path.write_text(yaml.safe_dump(content))
    return path


def test_order_of_lookup(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launchpad.connection().embedded
    env = write(tmp_path / "env.yaml", host="env.example.org")
    monkeypatch.setenv("ALDRIVER_LAUNCHPAD", str(env))
    assert launchpad.connection().host == "env.example.org"
    write(tmp_path / "launchpad.yaml", embedded=True)
    assert launchpad.connection().host == "env.example.org"
    write(tmp_path / "launchpad.yaml", host="here.example.org", name="fw")
    found = launchpad.connection()
    assert (found.host, found.port, found.name, found.authsource) == ("here.example.org", 27017, "fw", "fw")
    option = write(tmp_path / "option.yaml", uri="mongodb://me:pa55w0rd@a.example.org/?x=1")
    found = launchpad.connection(option)
    assert found.uri_mode and found.host.startswith("mongodb://")


def test_the_repository_file_means_embedded(database):
    assert launchpad.connection(REPOSITORY / "launchpad.yaml").embedded


def test_secrets_are_not_shown(tmp_path):
    file = write(tmp_path / "a.yaml", uri="mongodb://me:pa55w0rd@a.example.org/?authSource=x")
    found = launchpad.connection(file)
    assert "pa55w0rd" not in found.describe() and "a.example.org" in found.describe()
    file = write(tmp_path / "b.yaml", host="b.example.org", username="me", password="pa55w0rd")
    found = launchpad.connection(file)
    assert "pa55w0rd" not in repr(found) + found.describe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hots: a", "line 1: unknown key 'hots'"),
        ("embedded: true\nport: 99999", "line 2: port"),
        ("host: a\nembedded: true", "exclude each other"),
        ("- a", "mapping"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    path = tmp_path / "launchpad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        launchpad.connection(path)
    with pytest.raises(InputError, match="no such file"):
        launchpad.connection(tmp_path / "missing.yaml")


def test_an_unreachable_database_is_a_clear_error(tmp_path):
    kwargs = {"serverSelectionTimeoutMS": 300}
    file = write(tmp_path / "a.yaml", host="127.0.0.1", port=1, mongoclient_kwargs=kwargs)
    with pytest.raises(AldriverError, match=r"127\.0\.0\.1:1.*cannot be used"):
        launchpad.connect(file)


def test_describe_starts_nothing(own_home):
    assert "not running" in launchpad.describe()
    assert launchpad.connection(start=False) is None


def test_plain_lpad_works_on_the_written_file(database, tmp_path):
    path = launchpad.write_launchpad_file(tmp_path / "my_launchpad.yaml")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with launchpad.session() as lp:
        before = lp.workflows.count_documents({})
    lpad = Path(sys.executable).with_name("lpad")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
    done = subprocess.run(
        [lpad, "-l", path, "get_wflows", "-d", "count"], capture_output=True, text=True, env=environment, check=True
    )
    assert int(done.stdout.split()[-1]) == before
    with pytest.raises(InputError, match="exists already"):
        launchpad.write_launchpad_file(path)
    with pytest.raises(InputError, match="does not exist"):
        launchpad.write_launchpad_file(tmp_path / "no" / "file.yaml")


def test_dead_workers_hold_no_lock_for_long(database):
    with launchpad.session():
        from fireworks.core.launchpad import WFLock

        lock = WFLock(None, 1)
        assert lock.kill and lock.expire_secs == launchpad.LOCK_SECONDS <= 30


def test_counters_and_indexes_are_made_once(database):
    with launchpad.session() as lp, launchpad.session() as other:
        assert lp.fw_id_assigner.count_documents({}) == 1
        assert other.get_new_fw_id() < lp.get_new_fw_id()
        assert "spec.campaign_1" in lp.fireworks.index_information()
