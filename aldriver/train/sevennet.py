"""SevenNet for the training loop. The network and its graphs are ``potentials/``'s business.

Energy shifts and scales per element are fixed; other energy references are met by a shift of the labels
(``energies.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from ase.data import atomic_numbers

from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.network import frozen
from aldriver.potentials.sevennet import EdgeGraph, energies_and_derivatives, join
from aldriver.potentials.sevennet_network import RESCALE, SevenNetwork, build_network
from aldriver.train.base import BatchPrediction, TrainAdapter

EMBEDDING = "onehot_to_feature_x.linear.weight"


class SevenNetAdapter(TrainAdapter):
    """A trainable copy of a SevenNet potential."""

    family = "sevennet"

    @property
    def network(self) -> SevenNetwork:
        """The module, as what it is."""
        return cast("SevenNetwork", self.module)

    def predict(self, graphs: Sequence[EdgeGraph], *, training: bool) -> BatchPrediction:
        """Energy per atom (eV), forces (eV/Å) and stress (GPa) of a batch."""
        batch = join(graphs)
        with contextlib.nullcontext() if training else frozen(self.module):
            sites, forces, virials = energies_and_derivatives(self.network, batch, create_graph=training)
        counts = forces.new_tensor(batch.counts)
        energy = forces.new_zeros(len(counts)).index_add(0, batch.owner, sites.energies)
        return BatchPrediction(
            energy=energy / counts, forces=forces, stress=virials / batch.volumes[:, None, None] * EV_A3_TO_GPA
        )

    def size(self, graph: EdgeGraph) -> int:
        """Edges of a frame."""
        return len(graph.vectors)

    def reset(self, seed: int) -> None:
        """Weights as sevenn draws them for a new network; energy shifts, scales and denominators stay."""
        network = self.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = dict(build_network(network.arch, dtype=next(network.parameters()).dtype).named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(drawn[name])

    def proxy(self, proxies: Mapping[str, str]) -> None:
        """Copy rows of the species embedding; elements the network has not get a row, and the energy shift, of theirs.

        e3nn divides the embedding by the square root of the number of species, so a longer table is scaled up.
        """
        network, species = self.network, list(self.network.arch["species"])
        if set(_listed(network.arch["self_connection_type"])) != {"linear"}:
            raise InputError("train.proxies: only SevenNet models with linear self-connections can get new elements")
        places = []
        for element, source in proxies.items():
            if atomic_numbers.get(source) not in species:
                raise InputError(f"train.proxies: {source} is not an element this SevenNet model knows")
            if element not in atomic_numbers:
                raise InputError(f"train.proxies: there is no element '{element}'")
            places.append(species.index(atomic_numbers[source]))
        new = [atomic_numbers[e] for e in proxies if atomic_numbers[e] not in species]
        state = network.state_dict()
        rows = state[EMBEDDING].view(len(species), -1)
        larger = torch.cat([rows, rows.new_zeros(len(new), rows.shape[1])])
        tables = {key: state[f"{RESCALE}.{key}"] for key in ("shift", "scale")}
        order = [*species, *new]
        for element, place in zip(proxies, places, strict=True):
            larger[order.index(atomic_numbers[element])] = rows[place]
            if atomic_numbers[element] in new:
                tables = {k: torch.cat([t, t[place : place + 1]]) if len(t) > 1 else t for k, t in tables.items()}
        state[EMBEDDING] = (larger * (len(order) / len(species)) ** 0.5).flatten()
        state |= {f"{RESCALE}.{key}": table for key, table in tables.items()}
        grown = build_network(network.arch | {"species": order}, state, dtype=rows.dtype)
        self._potential = self._potential.with_module(grown)
        self._potential.module.requires_grad_(True)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
