"""Detect: where the potential is guessing, and which of those frames deserve a label.

:class:`Detector` scores frames against the data a potential has seen; :func:`select` turns scores into a short list.
Running MD and computing labels are other stages' business.
"""

from __future__ import annotations

from aldriver.detect.detector import Detector, FrameScore
from aldriver.detect.select import Selection, Selector, select

__all__ = ["Detector", "FrameScore", "Selection", "Selector", "select"]
