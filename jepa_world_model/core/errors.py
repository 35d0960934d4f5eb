"""The errors a user can mend: the command line prints their one sentence and exits with 2."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can mend; the message says what, where, what was allowed, and the next move."""


class ConfigError(UserError):
    """A configuration key or value that cannot be used."""


class PeerError(RuntimeError):
    """Another process of the same training failed; the message says which, and of what."""


class ContractError(UserError):
    """A declaration broken: a loss or latent reads, moves or owns what it did not declare."""
