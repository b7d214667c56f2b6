"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Say in one line what is wrong, where, and the remedy.

    The command line prints it as ``error: ...`` and exits with code 2; notebooks show it without a traceback.

    Example:
        >>> str(UserError("corpus 'x.txt' does not exist; give an existing file or 'champ'"))
        "corpus 'x.txt' does not exist; give an existing file or 'champ'"
    """
