import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aldriver.workflow import service
from aldriver.workflow.campaign import create

STUBS = Path(__file__).parent / "stub_site"

RECIPE = {
    "name": "tiny",
    "seed": 1,
    "potential": "chgnet:0.2.0",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.84}}],
    "explore": {"temperatures_K": [600, 1200], "steps": 20, "sample_every": 5},
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4, "audit": 1, "fill": True},
    "benchmark": {"cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
    "stop": {"generations": 2},
    "resources": {"workers": 2},
}


@pytest.fixture(scope="session")
def database_home(tmp_path_factory):
    """State directory of the one embedded database that most tests of this folder share."""
    home = tmp_path_factory.mktemp("database")
    yield home
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALDRIVER_HOME", str(home))
        service.stop()


@pytest.fixture
def database(database_home, monkeypatch):
    """The shared embedded database, running."""
    monkeypatch.setenv("ALDRIVER_HOME", str(database_home))
    return service.start()


@pytest.fixture
def own_home(private_home):
    """An empty state directory; whatever server is started in it ends with the test."""
    yield private_home
    service.stop()


@pytest.fixture
def write_recipe(tmp_path):
    def write(name="recipe.yaml", **changes):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(RECIPE | changes))
        return path

    return write


@pytest.fixture
def campaign(write_recipe, tmp_path):
    return create(write_recipe(), tmp_path / "campaign")


@pytest.fixture
def stubs(monkeypatch, database):
    """Cheap stages, here and in every process started from here."""
    from aldriver.workflow import stages

    monkeypatch.setenv("PYTHONPATH", str(STUBS), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(STUBS))
    monkeypatch.setattr(stages, "FUNCTIONS", {name: f"stub_stages:{name}" for name in stages.FUNCTIONS})
    return database


@pytest.fixture
def start_run():
    """Start `aldriver run`'s engine in a process of its own; whatever is left of it is ended with the test."""
    started = []

    def start(root, **options):
        code = f"from aldriver.workflow.run import run; o = run({str(root)!r}, **{options!r}); print(o.state, o.reason)"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(root).parent,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
