"""Forces as a linear map of the last layer: derivatives of its inputs by positions. Their statistics: ``detect/``.

With the energy Σ φ·w + b over the atoms, the forces are G·w with G = −∂(Σ φ)/∂R: one walk back for each input, or for
each combination of them that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.potentials.network import to_numpy


def forces_of_inputs(
    phi: Tensor, walked_to: Tensor, directions: NDArray[np.float64] | None, forces: Callable[[Tensor], Tensor]
) -> NDArray[np.float64]:
    """(N, 3, K) forces of an energy that is a sum of last-layer inputs, or of combinations of them.

    Parameters
    ----------
    phi
        (N, D) inputs of the last layer, attached to `walked_to`.
    walked_to
        What they are differentiated by: positions, or edge vectors.
    directions
        (D, K) combinations; by default each input by itself.
    forces
        Makes (N, 3) forces of the derivative of an energy by `walked_to`.

    Raises
    ------
    InputError
        When `directions` do not fit the layer.
    """
    total = phi.sum(dim=0)
    if directions is not None:
        if np.ndim(directions) != 2 or len(directions) != len(total):
            raise InputError(f"directions of shape {np.shape(directions)} for a last layer of {len(total)} inputs")
        total = total @ torch.as_tensor(np.asarray(directions), dtype=total.dtype, device=total.device)
    columns = []
    for value in total:
        (gradient,) = torch.autograd.grad(value, [walked_to], retain_graph=True, materialize_grads=True)
        columns.append(to_numpy(forces(gradient)))
    return np.stack(columns, axis=-1)
