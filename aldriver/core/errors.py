"""The errors aldriver shows to people: what is wrong, where, and what to do."""

from __future__ import annotations


class AldriverError(Exception):
    """A failure with a reason a user can act on; the command line exits with 1."""

    exit_code = 1


class InputError(AldriverError):
    """Bad input (recipe, file, option); the command line exits with 2."""

    exit_code = 2


class CampaignBusyError(AldriverError):
    """Another process is working on this campaign."""


class StoreError(AldriverError):
    """A published directory is damaged, incomplete or cannot be written."""
