"""From one kind of file to another: model files of other programs, saved potentials of any format, names.

A file that may hold code is opened only when it is trusted, and then in a short-lived process of its own, which writes
files that hold nothing but numbers.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.store import publish, sha256_file
from aldriver.potentials.vendor import VENDORS, save_vendor, snippet_of

if TYPE_CHECKING:
    from aldriver.potentials.base import Potential

Target = Literal["aldriver", "vendor"]
BESIDE = ("card.json", "detector")
"""What may lie beside a saved potential and goes with it: both name its fingerprint."""
TIMEOUT_S = 900


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Target | None = None,
    trust_pickle: bool = False,
    head: str | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Write `source` as a directory of aldriver, or in the format of the program it comes from.

    Parameters
    ----------
    source
        A model file (``.model`` of MACE, ``.pth.tar`` of CHGNet, ``.pth`` of SevenNet), a directory that any version
        of aldriver saved, or a name for ``aldriver.load``; ``mace:NAME`` is a foundation model that mace downloaded.
    destination
        Must not exist yet.
    to
        By default what the ending of `destination` says.
    trust_pickle
        Whether a file that may hold code is opened at all.

    Returns
    -------
    dict
        ``source``, ``path``, ``to``, ``potential`` (its name), ``family``, ``fingerprint``, ``elements``,
        ``use`` (Python that loads what was written).

    Raises
    ------
    InputError
        When `source` is not understood, not trusted or damaged, or `destination` exists or does not fit.
    """
    path = Path(destination)
    to = to or ("vendor" if path.name.endswith(tuple(v.suffix for v in VENDORS.values())) else "aldriver")
    if path.exists():
        raise InputError(f"{path}: exists already and is not overwritten; name a new one")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    with tempfile.TemporaryDirectory(prefix="aldriver-convert-") as scratch:
        potential, extra = _read(str(source), Path(scratch), trust_pickle=trust_pickle, head=head, dtype=dtype)
        if to == "vendor":
            save_vendor(potential, path)
            use = snippet_of(potential, path)
        else:
            _save(potential, path, source, extra)
            use = f'import aldriver\n\ncalculator = aldriver.load("{path}").calculator()\n'
    return {
        "source": str(source),
        "path": path,
        "to": to,
        "potential": potential.name,
        "family": potential.family,
        "fingerprint": potential.fingerprint,
        "elements": sorted(potential.elements),
        "use": use,
    }


def _read(
    source: str, scratch: Path, *, trust_pickle: bool, head: str | None, dtype: str | None
) -> tuple[Potential, dict[str, Any]]:
    """The potential, and what its config shall keep of where it comes from."""
    from aldriver.potentials import load

    file = Path(source.removeprefix("mace:"))
    if source.startswith("mace:") and not file.is_dir():
        return _mace(file, trust_pickle, head, dtype)
    if not file.is_file():
        return load(source, dtype=dtype, head=head), {}
    origin = {"origin": {"source": str(file), "sha256": sha256_file(file)}}
    if file.name.endswith(VENDORS["mace"].suffix):
        return _mace(file, trust_pickle, head, dtype)
    if head is not None:
        raise InputError(f"{file}: only MACE models have heads; leave --head out")
    if file.name.endswith(VENDORS["chgnet"].suffix):
        from aldriver.potentials.chgnet_vendor import read_checkpoint

        name = file.name.removesuffix(VENDORS["chgnet"].suffix)
        return read_checkpoint(file, name=f"chgnet:{name}", dtype=dtype or "float32"), origin
    if file.name.endswith(VENDORS["sevennet"].suffix):
        _sevennet_elsewhere(file, scratch / "potential", trust_pickle)
        return load(scratch / "potential", dtype=dtype), origin
    kinds = ", ".join(f"{v.suffix} ({v.program})" for v in VENDORS.values())
    raise InputError(f"{file}: what kind of model this is cannot be told from its name; aldriver reads {kinds}")


def _mace(file: Path, trust_pickle: bool, head: str | None, dtype: str | None) -> tuple[Potential, dict[str, Any]]:
    from aldriver.potentials.mace_convert import convert_model

    potential = convert_model(file, trust_pickle=trust_pickle, head=head, dtype=dtype or "float32")
    return potential, {"origin": getattr(potential, "origin", {"source": str(file)})}


def _save(potential: Potential, path: Path, source: str | Path, extra: dict[str, Any]) -> None:
    from aldriver.potentials.bundle import CONFIG, describe_bundle, inside, save_bundle

    folder, parent = Path(str(source)), None
    saved = (folder / CONFIG).is_file()
    if saved:
        old = describe_bundle(folder)
        parent, extra = old.get("parent"), old.get("extra", {}) | extra
    with publish(path) as fresh:
        save_bundle(potential, fresh, parent=parent, extra=extra)
        for name in BESIDE if saved and potential.fingerprint == old["fingerprint"] else ():
            beside = inside(folder, name, f"'{name}'")
            if beside.is_dir():
                shutil.copytree(beside, fresh / name)
            elif beside.is_file():
                shutil.copy(beside, fresh / name)


# ---- SevenNet's files are opened where sevenn is --------------------------------------------------------------------


def _sevennet_elsewhere(file: Path, folder: Path, trust_pickle: bool) -> None:
    from aldriver.core.config import required_python
    from aldriver.potentials.families import is_here

    python = sys.executable if is_here("sevennet") else str(required_python("sevennet"))
    command = [python, "-m", "aldriver.potentials.convert", str(file.resolve()), str(folder)]
    command += ["--trust-pickle"] if trust_pickle else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{file}: opening it took more than {TIMEOUT_S} s; is it a SevenNet checkpoint?") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise (InputError if done.returncode == 2 else AldriverError)(words[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """In a process of its own: open a checkpoint of SevenNet and write it as a directory of aldriver."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.potentials.convert", description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trust-pickle", action="store_true", help="run what the file says, if it says anything")
    options = parser.parse_args(argv)
    from aldriver.potentials.bundle import save_bundle
    from aldriver.potentials.sevennet_vendor import read_vendor

    try:
        save_bundle(read_vendor(options.source, trusted=options.trust_pickle), options.folder)
    except AldriverError as error:
        with suppress(OSError):
            print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
