import numpy as np
import pytest
from monitor_helpers import shaken

from aldriver.core.recipe_detect import Detect
from aldriver.detect import Detector
from aldriver.monitor.journal import Journal
from aldriver.monitor.judge import Judge
from aldriver.monitor.record import Recorder
from aldriver.monitor.watch import Watch
from aldriver.potentials.bundle import save_bundle

SOAP = {"signals": ["soap_q"], "soap": {"n_max": 3, "l_max": 2}}


@pytest.fixture(scope="session")
def pair(eam_fe):
    """A potential and a detector that knows gently shaken bcc iron; its limit is a quantile."""
    known = [shaken(0.1, seed) for seed in range(8)]
    heldout = [shaken(0.1, 100 + seed) for seed in range(24)]
    return eam_fe, Detector.fit(known, eam_fe, Detect.model_validate(SOAP), heldout=heldout)


@pytest.fixture(scope="session")
def bundle(pair, tmp_path_factory):
    """The same as `aldriver export` leaves it."""
    potential, detector = pair
    folder = tmp_path_factory.mktemp("a bundle") / "export"
    save_bundle(potential, folder)
    detector.save(folder / "detector")
    return folder


@pytest.fixture
def recorder(pair, tmp_path):
    """What judges and writes, into an empty folder."""
    potential, detector = pair

    def make(out="out", *, resume=True, patience=1, **options):
        about = {"source": "test", "fingerprint": potential.fingerprint}
        journal = Journal(tmp_path / out, about=about, resume=resume)
        saved = journal.state.get("watch")
        watch = Watch.of(saved, patience=patience) if saved else Watch(patience=patience)
        return Recorder(Judge(detector, potential), watch, journal, group="test", **options)

    return make


@pytest.fixture
def looks_of():
    """The looks in a folder, without the times."""
    import json

    def read(folder, event="look"):
        lines = [json.loads(line) for line in (folder / "looks.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "time"} for line in lines if line["event"] == event]

    return read


@pytest.fixture
def distances():
    """Sorted distances of all pairs, which neither order nor orientation changes."""

    def of(atoms):
        return np.sort(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)])

    return of
