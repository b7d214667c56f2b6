from __future__ import annotations

import pytest

from rmt_mini.engine.attention import tree_mask
from rmt_mini.scale.planner import FRAME_TOKENS
from rmt_mini.teaching.widgets.tree import (
    TRUNK,
    Counts,
    cost_explorer,
    count_step,
    small_tree,
    spread,
    tree_explorer,
    tree_or_rows,
)


def test_counts_by_hand() -> None:
    # trunk of 4 (10 pairs); four branches of 2: at 1 see 1 + 1 and 1 + 2, at 3 see 3 + 1 and 3 + 2
    found = count_step(document=4, positions=[1, 3], group_size=2, branch=2)
    # rows: four of 3 + 2 tokens (15 pairs each), and the document
    assert found == Counts(tree_tokens=12, rows_tokens=24, tree_pairs=10 + 2 * 5 + 2 * 9, rows_pairs=4 * 15 + 10)
    assert found.token_saving == 2.0
    assert found.pair_saving == 70 / 38


@pytest.mark.parametrize("positions", [[1], [3, 7], [2, 2, 9]])
def test_pairs_are_those_of_the_mask(positions: list[int]) -> None:
    found = count_step(10, positions, group_size=3, branch=4)
    mask = tree_mask(10, [(index, 4) for index in positions for _ in range(3)])
    assert found.tree_pairs == int(mask.sum())
    assert found.tree_tokens == len(mask)


def test_a_long_document_saves_as_many_times_as_there_are_rows() -> None:
    found = count_step(10**6, [10**6 - 1], group_size=8, branch=10)
    assert found.token_saving == pytest.approx(9, rel=1e-3)  # eight rollouts and the document
    assert found.pair_saving == pytest.approx(9, rel=1e-3)
    assert count_step(2, [1], group_size=1, branch=10**4).token_saving == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("document", "positions", "group_size", "said"),
    [
        (4, [4], 1, "position 4 lies outside 1..3"),
        (4, [0], 1, "position 0"),
        (4, [], 1, "0 positions"),
        (4, [1], 0, "0"),
    ],
)
def test_what_cannot_be_counted_is_refused(document: int, positions: list[int], group_size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        count_step(document, positions, group_size, branch=1)


def test_spread_stays_inside_and_apart() -> None:
    assert spread(16, 3) == [4, 8, 12]
    for count in (1, 5, 15):
        places = spread(16, count)
        assert len(set(places)) == count
        assert min(places) >= 1
        assert max(places) < 16


def test_cost_is_told_as_counted() -> None:
    found = count_step(64, spread(64, 2), 4, 10 + FRAME_TOKENS)
    alt = tree_or_rows(64, 2, 4, 10).alt
    assert f"the tree reads {found.tree_tokens:,} tokens where padded rows read {found.rows_tokens:,}, " in alt
    assert f"pairs are {found.tree_pairs:,} against {found.rows_pairs:,}, {found.pair_saving:.1f} times" in alt
    with pytest.raises(ValueError, match="do not fit a document of 16"):
        tree_or_rows(16, 16, 1, 1)


def test_every_control_of_the_cost_moves_it() -> None:
    explorer = cost_explorer()
    for name, value in (("document", 512), ("positions", 8), ("group_size", 2), ("thought", 64)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == tree_or_rows(**explorer.settings).alt != before, name
    explorer.controls["document"].value = 16
    explorer.controls["positions"].value = 16
    assert "do not fit" in explorer.alt


def test_the_small_tree_draws_a_branch_for_each_rollout() -> None:
    alt = small_tree(5, 9, 2, 4).alt
    pairs = count_step(len(TRUNK), [5, 9], 2, 4 + 3)  # think, /think and the answer
    assert "with 4 branches, at 5, 5, 9, 9" in alt
    assert f"{pairs.tree_pairs} are seen" in alt
    with pytest.raises(ValueError, match="index=14 lies outside"):
        small_tree(5, 14, 1, 1)


def test_every_control_of_the_small_tree_moves_it() -> None:
    explorer = tree_explorer()
    for name, value in (("first", 1), ("second", 13), ("group_size", 1), ("thought", 0)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == small_tree(**explorer.settings).alt != before, name
