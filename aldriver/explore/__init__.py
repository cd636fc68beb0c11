"""Explore: molecular dynamics with today's potential, watched by health checks and scored on the way."""

from __future__ import annotations

from aldriver.explore.health import HealthLimits, Reason
from aldriver.explore.protocol import MDProtocol, Swaps
from aldriver.explore.walker import WalkerResult, run_walker

__all__ = ["HealthLimits", "MDProtocol", "Reason", "Swaps", "WalkerResult", "run_walker"]
