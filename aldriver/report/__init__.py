"""The report: one self-contained HTML file of a campaign, from its files alone.

Computes no physics and runs no stage.
"""

from __future__ import annotations

from pathlib import Path


def write_report(campaign: Path, out: Path) -> Path:
    """Write the report of a campaign, finished or under way, as one HTML file that loads nothing from a network.

    Parameters
    ----------
    campaign
        Campaign directory.
    out
        HTML file, or a directory in which ``report.html`` is written.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        When `campaign` is not a campaign directory. Missing or damaged pieces inside it are named in the report.
    """
    from aldriver.core.store import atomic_write, disk_errors
    from aldriver.report.data import read_campaign
    from aldriver.report.html import render

    page = render(read_campaign(Path(campaign)))
    out = Path(out)
    if out.is_dir():
        out = out / "report.html"
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, page)
    return out


__all__ = ["write_report"]
