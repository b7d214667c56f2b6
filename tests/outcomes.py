"""What may come of bad input: the right result, or one clear line."""

from collections.abc import Callable
from typing import Any

from rmt_mini.errors import UserError


def either(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return what a call gives, or the one line in which it refuses; anything else that it raises fails the test.

    Example:
        >>> either(lambda: 3)
        (3, None)
    """
    try:
        return call(), None
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 1000, message
    return None, message
