"""Monitor: the detector beside a run, inside LAMMPS or behind a growing trajectory.

Measuring how unknown a frame is belongs to ``detect/``; whoever starts a monitor hands it a detector.
"""

from __future__ import annotations

from aldriver.monitor.judge import Judge, Look
from aldriver.monitor.live import LiveGuard

__all__ = ["Judge", "LiveGuard", "Look"]
