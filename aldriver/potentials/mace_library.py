"""The mace package, used without its side effects. What is made of it is the business of the other ``mace_*`` modules.

Importing mace sets ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` for the whole process, which makes every later ``torch.load``
without an explicit ``weights_only`` run what a file says; e3nn's import relies on it once, nothing after that does.
Inside :func:`mace_library` mace may be imported and called; afterwards the variable, torch's default precision and the
log handlers are as a program expects them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from importlib import metadata

import torch

UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
E3NN = "0.4"
"""mace-torch pins it for the sake of its pickles; networks built from their weights run on newer ones as well."""


@contextlib.contextmanager
def mace_library(*, dtype: torch.dtype | None = None, scripted: bool = False) -> Iterator[None]:
    """Inside, mace can be imported and networks can be built.

    Parameters
    ----------
    dtype
        Default precision inside: of what is built there.
    scripted
        Whether e3nn compiles its generated code with TorchScript, as mace does by itself. Without, networks are built
        faster, can be copied, give the same numbers at every call, and are no slower on a CPU.
    """
    precision, handlers, level = torch.get_default_dtype(), list(logging.root.handlers), logging.root.level
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f"Environment variable {UNSAFE}", category=UserWarning)
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="The TorchScript type system", category=UserWarning)
            with contextlib.redirect_stdout(io.StringIO()):  # the import prints that there are no GPU kernels
                import mace.modules  # noqa: F401
            from e3nn import get_optimization_defaults, set_optimization_defaults

            defaults = get_optimization_defaults()
            set_optimization_defaults(jit_script_fx=scripted)
            torch.set_default_dtype(dtype or precision)
            try:
                yield
            finally:
                set_optimization_defaults(**defaults)
    finally:
        os.environ.pop(UNSAFE, None)
        torch.set_default_dtype(precision)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def mace_needs() -> str:
    """What is in the way of mace's own (pickled) files here; empty where nothing is."""
    found = metadata.version("e3nn")
    if found.startswith(f"{E3NN}."):
        return ""
    return f": mace's own files are read and written with e3nn {E3NN}, as mace-torch asks for; here is e3nn {found}"
