"""Checks of exercises: ``check(your_function)`` in the cell that defines it.

    >>> def length_reward(length, budget):
    ...     return max(0.0, 1 - abs(length - budget) / budget)
    >>> check(length_reward)
    length_reward is right: ...

What is asked, the cases and the known wrong answers are data: ``rmt_mini/teaching/exercises/*.yaml`` (``exercise``).
"""

from rmt_mini.teaching.checks.checking import LIMIT, Verdict, Wrong, check, judge
from rmt_mini.teaching.checks.exercise import EXERCISES

__all__ = ["EXERCISES", "LIMIT", "Verdict", "Wrong", "check", "judge"]
