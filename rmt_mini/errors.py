"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Say in one line what is wrong, where, and the remedy.

    The command line prints it as ``error: ...`` and exits with code 2; notebooks show it without a traceback.

    Example:
        >>> str(UserError("corpus 'x.txt' does not exist; give an existing file or 'champ'"))
        "corpus 'x.txt' does not exist; give an existing file or 'champ'"
    """


class Stopped(Exception):
    """A run was stopped on request, in good order; ``rmt-mini resume`` takes it up again.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(f"stopped; to go on: rmt-mini resume {folder}")
