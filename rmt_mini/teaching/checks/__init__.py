"""Checks of exercises: ``check(your_function)`` in the cell that defines it.

    >>> def length_reward(length, budget):
    ...     return max(0.0, 1 - abs(length - budget) / budget)
    >>> check(length_reward)
    length_reward is right: ...

Every check calls the learner's function on cases (``cases``), holds what it gives against what is expected
(``compare``), and where they differ looks for a known wrong implementation (``rmt_mini.teaching.mutants``) that gives
the same: that names the slip.
"""

from rmt_mini.teaching.checks.checking import EXERCISES, LIMIT, Verdict, Wrong, check, judge

__all__ = ["EXERCISES", "LIMIT", "Verdict", "Wrong", "check", "judge"]
