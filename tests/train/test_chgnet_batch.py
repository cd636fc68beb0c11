from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.recipe_train import Train
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.train.base import make_adapter


def scalar(e: torch.Tensor, f: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Anything that mixes all outputs."""
    return e.square().mean() + f.square().mean() + 0.01 * s.square().mean() + (f[:, 0] * f[:, 1]).sum()


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0"])
def test_outputs_and_training_gradients_are_chgnets_own(version, fe_frames):
    adapter = make_adapter(CHGNetPotential.foundation(version, dtype="float32"))
    adapter.set_trainable(Train())
    graphs = [adapter._potential.graph(a) for a in fe_frames]
    own = adapter.module(graphs, task="efs")
    theirs = own["e"], torch.cat(list(own["f"])), torch.stack(list(own["s"]))
    p = adapter.predict([adapter.graph(a) for a in fe_frames], training=True)
    ours = p.energy, p.forces, p.stress
    for a, b, tolerance in zip(ours, theirs, (1e-5, 2e-4, 1e-3), strict=True):
        assert torch.allclose(a, b, atol=tolerance)
    named = {name: q for name, q in adapter.module.named_parameters() if q.requires_grad}
    g1, g2 = (torch.autograd.grad(scalar(*x), list(named.values()), allow_unused=True) for x in (theirs, ours))
    largest = max(float(a.norm()) for a in g1 if a is not None)
    for name, a, b in zip(named, g1, g2, strict=True):
        if name.startswith(f"angle_layers.{adapter.module.n_conv - 2}."):
            assert b is None or not b.any(), "nothing reads the last angle update"
            continue
        assert torch.allclose(a, b, atol=1e-4 * largest), name


def test_the_training_gradient_is_a_derivative(chgnet020_double, fe_frames):
    adapter = make_adapter(chgnet020_double)
    adapter.set_trainable(Train(strategy="conv-only"))
    graphs = [adapter.graph(a) for a in fe_frames[:2]]
    weight = adapter.module.bond_conv_layers[1].twoBody_bond.mlp_core.layers[0].weight

    def value() -> torch.Tensor:
        p = adapter.predict(graphs, training=True)
        return scalar(p.energy, p.forces, p.stress)

    (gradient,) = torch.autograd.grad(value(), weight)
    index = divmod(int(gradient.abs().argmax()), gradient.shape[1])
    h = 1e-5
    with torch.no_grad():
        weight[index] += h
    up = float(value().detach())
    with torch.no_grad():
        weight[index] -= 2 * h
    down = float(value().detach())
    assert float(gradient[index]) == pytest.approx((up - down) / (2 * h), rel=1e-5)


def test_stress_is_the_strain_derivative_in_gpa(chgnet020_double, fe_frames):
    adapter = make_adapter(chgnet020_double)
    atoms = fe_frames[1]
    p = adapter.predict([adapter.graph(atoms)], training=False)
    h = 1e-4

    def energy(i: int, j: int, step: float) -> float:
        deformed = atoms.copy()
        strain = np.eye(3)
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        deformed.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
        return 2 * float(adapter.predict([adapter.graph(deformed)], training=False).energy)

    for i, j in ((0, 0), (1, 2)):
        slope = (energy(i, j, h) - energy(i, j, -h)) / (2 * h) / atoms.get_volume() * EV_A3_TO_GPA
        assert float(p.stress[0, i, j]) == pytest.approx(slope, abs=2e-4)


def test_a_frame_without_angles_is_not_changed_by_its_neighbours_in_the_batch(chgnet020):
    # nearest neighbours at 4.3 Å: bonds, but none shorter than the 3 Å of the angles
    sparse, dense = bulk("Cs", "bcc", a=5.0), bulk("Fe", "bcc", a=2.855)
    adapter = make_adapter(chgnet020)
    two = bulk("Fe", "bcc", a=2.9, cubic=True)
    two.rattle(0.1, seed=1)
    graphs = [adapter.graph(a) for a in (sparse, dense, sparse, two)]
    together = adapter.predict(graphs, training=False)
    for k, graph in enumerate(graphs):
        assert float(together.energy[k]) == pytest.approx(float(adapter.predict([graph], training=False).energy[0]))
    singles = [adapter.predict([graph], training=False) for graph in graphs]
    for name in ("forces", "stress", "magmoms"):
        alone = torch.cat([getattr(p, name) for p in singles])
        assert torch.allclose(getattr(together, name), alone, atol=1e-3 if name == "stress" else 5e-5)
    assert float(together.energy[0]) == pytest.approx(chgnet020.evaluate([sparse])[0].energy, abs=1e-5)


def test_the_start_is_not_touched_and_the_result_stays(chgnet020, fe_cell):
    fingerprint = chgnet020.fingerprint
    adapter = make_adapter(chgnet020)
    adapter.set_trainable(Train())
    kept = adapter.potential("kept")
    with torch.no_grad():
        for p in adapter.module.parameters():
            p.mul_(1.01)
    moved = adapter.potential("moved")
    assert chgnet020.fingerprint == kept.fingerprint == fingerprint
    assert moved.fingerprint != fingerprint
    assert not any(p.requires_grad for p in moved.module.parameters())


def test_a_frame_without_volume_is_refused(chgnet020, fe_cell):
    fe_cell.cell[2] = 0
    fe_cell.pbc = (True, True, False)
    with pytest.raises(InputError, match="three cell vectors"):
        make_adapter(chgnet020).graph(fe_cell)
