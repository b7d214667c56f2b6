"""Right answers that the exercises write out themselves agree with what the package does elsewhere."""

from __future__ import annotations

import random

from rmt_mini.teaching.checks.of_tree import count_tokens
from rmt_mini.teaching.widgets.tree import count_step


def test_tokens_of_a_tree_are_counted_as_in_the_lesson() -> None:
    source = random.Random(0)
    for _ in range(20):
        document = source.randint(2, 50)
        step = document, [source.randint(1, document - 1) for _ in range(3)], source.randint(1, 5), source.randint(1, 9)
        counted = count_step(*step)
        assert count_tokens(*step) == (counted.tree_tokens, counted.rows_tokens)
