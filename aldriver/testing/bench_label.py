"""What the label layer costs beside the DFT code: CPU time per label and peak memory, Si2 by Quantum ESPRESSO.

Run by ``aldriver.testing.bench``. The labels are made in a process of its own, whose CPU time without that of its
children is the layer's: ``python -m aldriver.testing.bench_label N``.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError
from aldriver.testing.bench import BenchResult, Skipped, bench

LABELS = 100
MOST_CPU_S, MOST_MB = 1.0, 300.0
PSEUDO = Path("/usr/share/espresso/pseudo")


@bench("label_overhead")
def label_overhead(repeats: int = 1) -> BenchResult:
    """Allowed CPU time of a label over that of everything but pw.x, start of the process and imports included.

    Raises
    ------
    AldriverError
        When a label failed or the process took more than 300 MB.
    Skipped
        When pw.x or the pseudopotential is absent.
    """
    if shutil.which("pw.x") is None or not (PSEUDO / "Si.pbe-rrkj.UPF").is_file():
        raise Skipped("it needs pw.x and Debian's pseudopotentials (quantum-espresso, quantum-espresso-data)")
    ran = subprocess.run([sys.executable, "-m", __name__, str(LABELS)], capture_output=True, text=True)
    if ran.returncode:
        raise AldriverError(f"the labels could not be made:\n{ran.stderr}")
    one: dict[str, Any] = json.loads(ran.stdout)
    if one["ok"] != LABELS:
        raise AldriverError(f"only {one['ok']} of {LABELS} labels are ok: {one['reasons']}")
    if one["peak_MB"] > MOST_MB:
        raise AldriverError(f"the label layer took {one['peak_MB']:.0f} MB, above {MOST_MB:g}")
    return BenchResult(
        name="label_overhead",
        what=f"CPU of a label beside pw.x, Si2, {LABELS} labels, {one['peak_MB']:.0f} MB: {MOST_CPU_S:g} s / aldriver",
        ratios=[MOST_CPU_S / one["own_cpu_s"]],
        baseline_ms=1e3 * MOST_CPU_S,
        ours_ms=1e3 * one["own_cpu_s"],
        target=1.0,
        notes=one,
    )


def measure(n: int) -> dict[str, Any]:
    """Label n frames of Si2 into a fresh store; CPU seconds per label of this process and of pw.x, peak memory."""
    from ase.build import bulk

    from aldriver.core.recipe_label import Label as LabelBlock
    from aldriver.label import label_frame, make_labeler

    espresso = {"pseudo_dir": PSEUDO, "pseudopotentials": {"Si": "Si.pbe-rrkj.UPF"}, "ecutwfc_Ry": 20.0}
    block = LabelBlock.model_validate({"engine": "espresso", "espresso": espresso | {"kpoints": (2, 2, 2)}})
    labeler, spec = make_labeler(block, ["Si"])
    started = time.monotonic()
    reasons = []
    with tempfile.TemporaryDirectory() as store:
        for seed in range(n):
            frame = bulk("Si", a=5.43)
            frame.rattle(0.08, seed=seed)
            reasons.append(label_frame(frame, labeler, spec, Path(store)).reason)
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "labels": n,
        "ok": reasons.count(""),
        "reasons": sorted(set(reasons) - {""}),
        "own_cpu_s": (mine.ru_utime + mine.ru_stime) / n,
        "dft_cpu_s": (theirs.ru_utime + theirs.ru_stime) / n,
        "wall_s": (time.monotonic() - started) / n,
        "peak_MB": _peak_MB(),
    }


def _peak_MB() -> float:
    """Peak memory of this program alone: ``ru_maxrss`` would hold that of the process it was forked from, too."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
