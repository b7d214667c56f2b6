"""A question with several options, one of which is right; ``quiz`` asks them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question with several options, one of which is right.

    Attributes:
        lesson: the number of the lesson that answers it.
        name: in a few words; unique.
        asks: the question, plain text.
        options: what to choose from.
        right: the index of the right one.
        why: for each option, why it is right or what is wrong with it.

    Example:
        >>> one = Question(0, "a sum", "1 + 1?", ("1", "2"), right=1, why=("That is 1 + 0.", "Yes."))
        >>> one.options[one.right]
        '2'
    """

    lesson: int
    name: str
    asks: str
    options: tuple[str, ...]
    right: int
    why: tuple[str, ...]
