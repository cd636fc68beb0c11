"""The guard inside a run: what it costs, what it does when an alarm begins; telling somebody never ends it."""

from __future__ import annotations

import http.server
import json
import math
import sys
import threading
from itertools import pairwise

import pytest
from monitor_helpers import shaken

from aldriver.core.errors import InputError
from aldriver.monitor.alarms import Alarms
from aldriver.monitor.live import CLOSE_STEPS, LiveGuard, Pace
from aldriver.potentials.base import Prediction


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def simulate(step_s, look_s, steps, *, share=0.05):
    """A run of `steps` steps with a guard; steps of the looks, share of the time spent on them, final k."""
    clock = Clock()
    pace = Pace(share=share, clock=clock)
    looks, following, spent = [], 0, 0.0
    for step in range(steps):
        clock.now += step_s(step)
        if step == following:
            looks.append(step)
            pace.begin(step)
            clock.now += look_s(step)
            spent += look_s(step) if step else 0.0
            following = step + pace.end(step)
    run = sum(step_s(step) for step in range(1, steps))
    return looks, spent / run, pace


@pytest.mark.parametrize("ratio", [0.001, 0.052, 0.31, 1.01, 20.31])
@pytest.mark.parametrize("share", [0.02, 0.05])
def test_looking_costs_at_most_its_share(ratio, share):
    """k is the smallest whole number that keeps the share; every step where a look costs next to nothing."""
    looks, spent, pace = simulate(lambda s: 0.1, lambda s: 0.1 * ratio, 40_000, share=share)
    assert pace.every == max(1, math.ceil(ratio / share))
    beginning = 12 * ratio / 40_000  # k doubles from look to look
    assert spent <= share * 1.001 + beginning and pace.measured == pytest.approx(spent, rel=0.05)
    if ratio / share < 1:
        assert looks == list(range(40_000))


def test_it_is_measured_again_and_a_hiccup_does_not_blind_it():
    """Looks become five times dearer in mid-run; a single one takes a thousand times longer."""
    *_, pace = simulate(lambda s: 0.1, lambda s: 0.05 if s > 3000 else 0.01, 6000)
    assert pace.every == 10
    looks, _, pace = simulate(lambda s: 0.1, lambda s: 10.0 if s == 50 else 0.01, 400)
    assert pace.every == 2 and max(b - a for a, b in pairwise(looks)) <= 4


def test_the_first_look_does_not_count():
    """It pays for what is made once: imports, compilations."""
    *_, pace = simulate(lambda s: 0.1, lambda s: 100.0 if s == 0 else 0.001, 50)
    assert pace.every == 1 and pace.measured == pytest.approx(0.01)


def prediction() -> Prediction:
    import numpy as np

    return Prediction(energy=0.0, forces=np.zeros((16, 3)))


@pytest.fixture
def guard_of(recorder):
    def make(action, **options):
        one = recorder(action, resume=False, **options)
        return LiveGuard(one, action=action)

    return make


def test_log_goes_on_and_stop_says_why(guard_of, looks_of):
    calm, wild = shaken(0.05, 1), shaken(0.5, 2)
    for action, ends in (("log", False), ("stop", True)):
        guard = guard_of(action)
        assert guard(0, calm, prediction()) is None and guard.stopped is None
        why = guard(5, wild, prediction())
        assert (why is not None) == ends
        if ends:
            worst = guard.recorder.latest.suspects[0]
            assert (
                why.startswith("step 5: the frame is flagged: soap_q is")
                and f"Fe{worst.index} {worst.ratio:.2f}" in why
            )
        assert [look["verdict"] for look in looks_of(guard.recorder.journal.out)] == ["known", "flagged"]


def test_slow_looks_at_every_step_until_the_run_is_back_inside(guard_of):
    guard = guard_of("slow")
    guard(0, shaken(0.05, 1), prediction())
    assert not guard.slowed(1)
    guard(5, shaken(0.5, 2), prediction())
    assert guard.every == 1 and guard.slowed(5 + CLOSE_STEPS - 1) and not guard.slowed(5 + CLOSE_STEPS)
    guard(6, shaken(0.05, 3), prediction())
    assert guard.every == 1
    guard(5 + CLOSE_STEPS, shaken(0.05, 4), prediction())
    assert not guard.slowed(6 + CLOSE_STEPS)


def test_a_folder_of_a_run_is_never_written_over(guard_of, recorder):
    guard = guard_of("log")
    guard.recorder.journal.commit()
    with pytest.raises(InputError, match="name another --out"):
        recorder("log", resume=False)


def test_a_command_gets_the_alarm_and_its_failures_are_noted(tmp_path, recorder, looks_of):
    got = tmp_path / "got.json"
    script = tmp_path / "tell.py"
    script.write_text(f"import sys; open({str(got)!r}, 'w').write(sys.stdin.read())")
    one = recorder(alarms=Alarms(command=f"{sys.executable} {script}"))
    for step, frame in enumerate([shaken(0.05, 1), shaken(0.5, 2), shaken(0.5, 3)]):
        one.take(step, frame)
    one.finish()
    told = json.loads(got.read_text())
    assert told["step"] == 1 and told["ratio"] > 1 and told["suspects"][0]["element"] == "Fe"  # once an excursion
    two = recorder("two", alarms=Alarms(command=f"{sys.executable} -c 'raise SystemExit(7)'"))
    two.take(0, shaken(0.5, 2))
    two.finish()
    assert "ended with 7" in looks_of(two.journal.out, "note")[0]["text"]
    slow = Alarms(command=f"{sys.executable} -c 'import time; time.sleep(600)'", timeout_s=0.5)
    slow.tell({})
    slow.wait()
    assert "took too long" in slow.problems[0]
    none = Alarms(command="/no/such/command")
    none.tell({})
    none.wait()
    assert "/no/such/command" in none.problems[0]


@pytest.fixture
def server():
    """A webhook on this machine: what it was sent, and the code it answers."""
    got, codes = [], [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(codes[0])
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}/hook?token=SECRET", got, codes
        one.shutdown()


def test_a_webhook_is_told_and_its_address_is_never_shown(server, recorder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    address, got, codes = server
    one = recorder(alarms=Alarms(webhook=address))
    one.take(3, shaken(0.5, 2))
    one.finish()
    assert got[0]["step"] == 3 and got[0]["verdict"] == "flagged"
    codes[0] = 500
    failing = Alarms(webhook=address)
    failing.tell({})
    failing.wait()
    refused = Alarms(webhook="http://127.0.0.1:1/hook?token=SECRET", timeout_s=5.0)
    refused.tell({})
    refused.wait()
    assert "answered 500" in failing.problems[0] and "failed (URLError)" in refused.problems[0]
    everything = failing.problems + refused.problems + [(one.journal.out / "looks.jsonl").read_text()]
    assert not any("SECRET" in text for text in everything)
