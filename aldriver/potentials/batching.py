"""How many atoms go into one batch, by the memory batches were seen to take. What a batch is, the network knows."""

from __future__ import annotations

from collections.abc import Callable

SHARE = 0.5
"""Of the free memory that a batch may fill: batches of the same number of atoms differ in their pairs."""
GROWTH = 4


class BatchSize:
    """Atoms in a batch: from `first` on, as many as fit, up to `most`.

    Parameters
    ----------
    free_bytes
        Memory a batch could still get, now (with nothing of a batch in it); None: there is no need to ask.
    """

    def __init__(self, first: int, most: int, free_bytes: Callable[[], int] | None = None) -> None:
        self.atoms, self.most, self._free = first, most, free_bytes

    def took(self, atoms: int, peak_bytes: int) -> None:
        """A batch of so many atoms took this much memory at its peak: choose the next ones by it."""
        if self._free is None or atoms == 0 or peak_bytes <= 0:
            return
        fits = int(SHARE * self._free() * atoms / peak_bytes)
        self.atoms = max(1, min(fits, GROWTH * self.atoms, self.most))

    def failed(self, atoms: int) -> None:
        """A batch of so many atoms did not fit."""
        self.atoms = self.most = max(1, atoms // 2)
