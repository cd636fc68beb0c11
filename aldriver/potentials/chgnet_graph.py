"""Crystal graphs for CHGNet from our own neighbour list. Running the network is ``chgnet.py``'s business."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.potentials.neighbours import Pairs

if TYPE_CHECKING:
    import torch
    from chgnet.graph import CrystalGraph


def crystal_graph(
    numbers: NDArray[np.int64], pairs: Pairs, *, atom_cutoff: float, bond_cutoff: float, dtype: torch.dtype
) -> CrystalGraph:
    """The graph ``CrystalGraphConverter`` makes, from pairs already found (edges in another order, same content).

    Every directed bond shorter than `bond_cutoff` forms an angle with every other such bond of the same centre
    (Deng et al., Nat. Mach. Intell. 5, 1031 (2023), the "bond graph").

    Raises
    ------
    AldriverError
        When an atom has no neighbour within `atom_cutoff`: the network says nothing of such an atom.
    """
    import torch
    from chgnet.graph import CrystalGraph

    refuse_isolated(numbers, pairs, atom_cutoff)
    angles = _angles(pairs, bond_cutoff, len(numbers))
    return CrystalGraph(
        atomic_number=torch.from_numpy(np.asarray(numbers, dtype=np.int32)),
        atom_frac_coord=torch.tensor(pairs.frac, dtype=dtype).requires_grad_(True),
        atom_graph=torch.from_numpy(np.stack([pairs.i, pairs.j], axis=1).astype(np.int32)),
        neighbor_image=torch.tensor(pairs.shift, dtype=dtype),
        directed2undirected=torch.from_numpy(pairs.undirected.astype(np.int32)),
        undirected2directed=torch.from_numpy(pairs.directed.astype(np.int32)),
        bond_graph=torch.from_numpy(angles.astype(np.int32)),
        lattice=torch.tensor(pairs.cell, dtype=dtype),
        atom_graph_cutoff=atom_cutoff,
        bond_graph_cutoff=bond_cutoff,
    )


def refuse_isolated(numbers: NDArray[np.int64], pairs: Pairs, cutoff: float) -> None:
    """Refuse a configuration with an atom that has no neighbour, naming the atom."""
    alone = np.flatnonzero(np.bincount(pairs.i, minlength=len(numbers)) == 0)
    if len(alone):
        from ase.data import chemical_symbols

        first = alone[0]
        others = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise AldriverError(
            f"atom {first} ({chemical_symbols[numbers[first]]}){others} has no neighbour within {cutoff:g} Å: CHGNet "
            "knows nothing of isolated atoms. Use a denser structure; in a run, this means that an atom has flown off."
        )


def _angles(pairs: Pairs, bond_cutoff: float, n_atoms: int) -> NDArray[np.int64]:
    """(n, 5): centre, undirected and directed first bond, undirected and directed second bond."""
    short = np.flatnonzero(pairs.distance < bond_cutoff)
    centre = pairs.i[short]  # sorted, as the pairs are
    count = np.bincount(centre, minlength=n_atoms)
    start = np.cumsum(count) - count
    partners = count[centre]
    a = np.repeat(np.arange(len(short)), partners)
    b = np.arange(len(a)) - np.repeat(np.cumsum(partners) - partners, partners) + start[centre[a]]
    a, b = a[a != b], b[a != b]
    first, second = short[a], short[b]
    return np.stack([pairs.i[first], pairs.undirected[first], first, pairs.undirected[second], second], axis=1)
