"""``aldriver convert``: model files of other programs to safe directories, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aldriver.cli.common import Json, console, emit

if TYPE_CHECKING:
    from aldriver.potentials.convert import Target


class To(StrEnum):
    """Whose files are written."""

    aldriver = "aldriver"
    vendor = "vendor"


class Precision(StrEnum):
    """Of the weights."""

    float32 = "float32"
    float64 = "float64"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A model file (MACE .model, CHGNet .pth.tar, SevenNet .pth), a directory saved by any version of "
            "aldriver, or a name (chgnet:0.3.0, sevennet:7net-0; mace:medium if mace has downloaded it)."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Directory, or file of the program; must not exist yet.")],
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Open a file that may run code, once and in a process of its own. Only if you trust its author.",
        ),
    ] = False,
    head: Annotated[str | None, typer.Option("--head", help="Of a MACE model with several heads.")] = None,
    to: Annotated[To | None, typer.Option("--to", help="Default: what the ending of DESTINATION says.")] = None,
    dtype: Annotated[Precision | None, typer.Option("--dtype", help="Default: float32, or as it was saved.")] = None,
    json_to: Json = None,
) -> None:
    """Write SOURCE as a safe directory of aldriver, or in the format of the program it comes from.

    A directory of an older format becomes one of today's.
    """
    from aldriver.potentials.convert import convert as run

    target: Target | None = to.value if to is not None else None
    result = run(source, destination, to=target, trust_pickle=trust_pickle, head=head, dtype=dtype and dtype.value)
    if not emit(result, json_to):
        elements = result["elements"]
        known = ", ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
        console.print(f"{result['potential']} ({known}), fingerprint {result['fingerprint']}", markup=False)
        console.print(f"written to {destination}", markup=False, highlight=False, soft_wrap=True)
        console.print("\n" + result["use"].rstrip(), markup=False, highlight=False, soft_wrap=True)
