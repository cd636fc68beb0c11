"""Potentials in the files of the program they come from, for use without aldriver.

What such a file holds is its family's business (``chgnet_vendor.py``, ``mace_vendor.py``, ``sevennet_vendor.py``).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from aldriver.potentials.base import Potential
    from aldriver.potentials.remote import RemotePotential


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A program with its own kind of file.

    Attributes
    ----------
    program
        What it is called.
    suffix
        How its files end.
    module
        Where ``save_vendor(potential, path) -> Path`` is.
    snippet
        Python that makes an ASE ``calculator`` of ``{file}`` with this program alone; see :func:`snippet_of`.
    """

    program: str
    suffix: str
    module: str
    snippet: str


VENDORS = {
    "chgnet": Vendor(
        program="chgnet",
        suffix=".pth.tar",
        module="aldriver.potentials.chgnet_vendor",
        snippet="""\
from chgnet.model import CHGNet
from chgnet.model.dynamics import CHGNetCalculator

calculator = CHGNetCalculator(CHGNet.from_file("{file}"), use_device="cpu")
""",
    ),
    "mace": Vendor(
        program="mace",
        suffix=".model",
        module="aldriver.potentials.mace_vendor",
        snippet="""\
from mace.calculators import MACECalculator

calculator = MACECalculator(model_paths="{file}", device="cpu", default_dtype="{dtype}"{head})
""",
    ),
    "sevennet": Vendor(
        program="SevenNet",
        suffix=".pth",
        module="aldriver.potentials.sevennet_vendor",
        snippet="""\
from sevenn.calculator import SevenNetCalculator

calculator = SevenNetCalculator("{file}", device="cpu")
""",
    ),
}
"""By family of potentials."""


def vendor_of(potential: Potential) -> Vendor:
    """The program a potential's family comes from.

    Raises
    ------
    InputError
        When it comes from none.
    """
    if potential.family not in VENDORS:
        raise InputError(
            f"{potential.name}: potentials of the family '{potential.family}' have no file format of another program "
            f"(those of {', '.join(VENDORS)} have)"
        )
    return VENDORS[potential.family]


def snippet_of(potential: Potential, file: str | Path) -> str:
    """Python that uses a potential's `file` with the program it comes from, without aldriver."""
    heads = getattr(potential, "heads", ())
    head = f', head="{getattr(potential, "head", "")}"' if len(heads) > 1 else ""
    return vendor_of(potential).snippet.format(file=file, dtype=getattr(potential, "precision", "float32"), head=head)


def save_vendor(potential: Potential, path: str | Path) -> Path:
    """Write a potential in the format of its own program.

    Raises
    ------
    InputError
        When its family has none, the name does not end as that program expects, or the file exists.
    StoreError
        When the disk is full or not writable.
    """
    vendor, path = vendor_of(potential), Path(path)
    if not path.name.endswith(vendor.suffix):
        raise InputError(f"{path}: files of {vendor.program} end in {vendor.suffix}; name it {path}{vendor.suffix}")
    if path.exists():
        raise InputError(f"{path}: exists already and is not overwritten; name a new file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    if getattr(potential, "remote", False):
        return cast("RemotePotential", potential).save_vendor(path)
    return cast("Path", importlib.import_module(vendor.module).save_vendor(potential, path))
