import os
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from aldriver.core.errors import AldriverError, InputError
from aldriver.workflow import service


def client(found):
    user, password = service.credentials(found.home)
    return MongoClient(found.host, found.port, username=user, password=password, authSource="admin")


def test_started_once_found_again_and_stopped(own_home):
    assert service.find() is None
    found = service.start()
    assert service.start() == found == service.find()
    state = service.status()
    assert state["running"] and state["port"] == found.port and state["bytes"] > 0
    assert service.stop()
    assert service.find() is None and not psutil.pid_exists(found.pid)
    assert not service.stop()
    assert service.start().port == found.port  # files for `lpad` written earlier stay good


def test_racing_processes_end_with_one_server(own_home):
    code = "from aldriver.workflow import service; s = service.start(); print(s.pid, s.port)"
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    found = service.find()
    assert answers == {f"{found.pid} {found.port}"}
    data = str(found.home / "db")
    servers = [process.pid for process in psutil.process_iter() if data in _words(process)]
    assert servers == [found.pid]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_acknowledged_writes_survive_a_kill(own_home):
    found = service.start()
    written = 0
    with client(found) as mongo:
        for i in range(300):
            mongo.test.things.insert_one({"_id": i})
            written = i + 1
            if i == 200:
                os.kill(found.pid, signal.SIGKILL)
                break
    again = service.start()
    assert again.pid != found.pid
    with client(again) as mongo:
        assert mongo.test.things.count_documents({}) == written


def test_another_process_with_the_recorded_pid_is_never_signalled(own_home):
    found = service.start()
    service.stop()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        service._record(
            service.Service(host="127.0.0.1", port=found.port, pid=bystander.pid, started=1.0, home=found.home)
        )
        assert not service.stop()
        assert service.start().pid != bystander.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_whose_starter_died_before_noting_it_is_found(own_home):
    found = service.start()
    (found.home / "service.json").unlink()
    assert service.start() == found


def test_a_hung_server_is_replaced(own_home, monkeypatch):
    found = service.start()
    os.kill(found.pid, signal.SIGSTOP)
    real = service._ping
    monkeypatch.setattr(service, "_ping", lambda s, timeout_s, auth=True: real(s, min(timeout_s, 1.0), auth=auth))
    monkeypatch.setattr(service, "START_TIMEOUT_S", 5.0)
    assert service.start().pid != found.pid
    assert not psutil.pid_exists(found.pid)


def test_a_taken_port_is_avoided_or_refused(own_home):
    found = service.start()
    service.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((found.host, found.port))
        thief.listen()
        with pytest.raises(InputError, match=rf"port {found.port} .*taken"):
            service.start(port=found.port)
        assert service.start().port != found.port


def test_only_the_owner_gets_in(own_home):
    found = service.start()
    assert stat.S_IMODE((found.home / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(found.home.stat().st_mode) == 0o700
    with MongoClient(found.host, found.port) as mongo, pytest.raises(OperationFailure, match="authentication"):
        mongo.fireworks.fireworks.find_one()
    with (
        MongoClient(found.host, found.port, username="aldriver", password="guess", authSource="admin") as mongo,
        pytest.raises(PyMongoError),
    ):
        mongo.fireworks.fireworks.find_one()
    _, password = service.credentials(found.home)
    assert password not in " ".join(psutil.Process(found.pid).cmdline())
    assert password not in (found.home / "service.log").read_text()
    assert all(c.laddr.ip == "127.0.0.1" for c in psutil.Process(found.pid).net_connections() if c.status == "LISTEN")


def test_the_server_inherits_no_descriptor(own_home, tmp_path):
    """A campaign's lock is passed on to workers; a server they start must not keep it."""
    with (tmp_path / "lock").open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        found = service.start()
        assert str(tmp_path / "lock") not in [f.path for f in psutil.Process(found.pid).open_files()]


def test_a_server_that_cannot_start_quotes_its_log(own_home):
    home = service.service_home()
    home.mkdir(parents=True)
    (home / "db").write_text("not a directory")
    with pytest.raises(AldriverError, match=r"did not start.*service\.log"):
        service.start()


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALDRIVER_HOME", str(tmp_path / "file"))
    with pytest.raises((AldriverError, OSError), match="file"):
        service.start()


def test_state_home_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("ALDRIVER_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert service.state_home() == tmp_path / "aldriver"
