"""SevenNet's own checkpoints: written for sevenn, read without running anything in them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from aldriver.core.errors import InputError
from aldriver.potentials.sevennet_vendor import read_vendor, save_vendor


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


@pytest.fixture
def refined(sevennet):
    """7net-0 with other weights."""
    potential = sevennet.copy()
    with torch.no_grad():
        potential.module.get_parameter("reduce_hidden_to_energy.linear.weight").mul_(1.01)
    potential.module.requires_grad_(False)
    return potential


def test_sevenn_computes_the_same_from_our_file(refined, sevennet, alloy, tmp_path):
    path = save_vendor(refined, tmp_path / "refined.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        alloy.calc = SevenNetCalculator(str(path), device="cpu")
    expected = refined.evaluate([alloy])[0]
    assert alloy.get_potential_energy() == pytest.approx(expected.energy, abs=2e-5)
    np.testing.assert_allclose(alloy.get_forces(), expected.forces, atol=1e-5)
    np.testing.assert_allclose(alloy.get_stress(), expected.stress, atol=2e-6)
    assert abs(expected.energy - sevennet.evaluate([alloy])[0].energy) > 1e-3


def test_sevenn_deploys_our_file(refined, tmp_path):
    path = save_vendor(refined, tmp_path / "refined.pth")
    command = [str(Path(sys.executable).parent / "sevenn"), "get_model", str(path), "-o", str(tmp_path / "deployed")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert (tmp_path / "deployed.pt").stat().st_size > 1e6


def test_our_file_read_back(refined, sevennet_double, tmp_path):
    again = read_vendor(save_vendor(refined, tmp_path / "refined.pth"))
    assert again.fingerprint == refined.fingerprint and again.name == "sevennet:refined"
    single = read_vendor(save_vendor(sevennet_double, tmp_path / "double.pth"))
    assert single.fingerprint == sevennet_double.fingerprint


def test_the_packaged_file_needs_trust(sevennet):
    from sevenn._const import SEVENNET_0_11Jul2024

    with pytest.raises(InputError, match="would run code from it"):
        read_vendor(SEVENNET_0_11Jul2024)
    assert read_vendor(SEVENNET_0_11Jul2024, trusted=True).fingerprint == sevennet.fingerprint


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"config": {}, "model_state_dict": {"x": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="would run code from it"):
        read_vendor(tmp_path / "evil.pth")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", [{"a": 1}, {"config": {"version": "0.13.0"}, "model_state_dict": {}}])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(InputError, match="checkpoint"):
        read_vendor(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="checkpoint|run code"):
        read_vendor(path)
