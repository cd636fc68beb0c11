"""A synthetic campaign, its report, and a browser, shared by the tests of this room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper modules of this folder

import report_browser
import report_campaign

from aldriver.report import write_report


@pytest.fixture(scope="session")
def campaign(tmp_path_factory):
    """A finished campaign of three generations. Not to be changed: take `fresh` for that."""
    return report_campaign.build(tmp_path_factory.mktemp("report") / "campaign")


@pytest.fixture
def fresh(tmp_path):
    """A campaign of its own for a test that breaks things; keyword options as in ``report_campaign.build``."""
    return lambda **options: report_campaign.build(tmp_path / "campaign", **options)


@pytest.fixture(scope="session")
def page(campaign, tmp_path_factory):
    """The report of `campaign`."""
    return write_report(campaign, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    executable = report_browser.find()
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    with report_browser.Browser(executable) as opened:
        yield opened
