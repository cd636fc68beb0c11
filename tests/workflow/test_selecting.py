"""What the selection of a generation is told about labels so far: who had one lately, what they cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ase.build import bulk

from aldriver.core.store import Ledger
from aldriver.workflow.stage_select import _cost_of, _heard


def labelled(repeat: int, **info):
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True) * (repeat, 1, 1)
    atoms.info |= info
    return atoms


def test_silence_counts_generations_with_labels_of_a_walker():
    rounds = [[labelled(1, walker=0), labelled(1, walker=1)], [labelled(1, walker=1)], [labelled(1, walker=1)]]
    assert _heard(rounds, None) is None
    # nobody can have been silent for longer than the campaign
    assert _heard(rounds, 4) is None
    assert _heard(rounds, 3) == {"walker": {"0", "1"}, "elements": {"Fe"}}
    assert _heard(rounds, 2) == {"walker": {"1"}, "elements": {"Fe"}}
    # a start cell has no walker
    assert _heard([[labelled(1)]], 1) == {"walker": set(), "elements": {"Fe"}}


def test_expected_core_hours_come_from_the_labels_so_far(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    campaign = SimpleNamespace(ledger=ledger)
    rounds = [[labelled(1, label_key="a"), labelled(2, label_key="b"), labelled(4, label_key="c")]]
    assert _cost_of(campaign, rounds) is None
    for key, n_atoms in (("a", 2), ("b", 4)):
        ledger.append("label", key=key, seconds=900.0 * n_atoms, cpu_s=0.0, cores=2, cached=False)
    # read from the cache: costs nothing and says nothing
    ledger.append("label", key="c", seconds=0.0, cpu_s=0.0, cores=2, cached=True)
    cost = _cost_of(campaign, rounds)
    assert cost is not None and list(cost([labelled(1), labelled(8)])) == pytest.approx([1.0, 8.0])
