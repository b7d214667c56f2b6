import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmt_mini.method.rewards import match_reward, prefix_match_reward, total_reward


@pytest.mark.parametrize(
    ("answer", "truth", "reward"),
    [
        (7, 7, 1.0),
        (7, 8, 0.0),
        (0, 0, 1.0),
        ((7,), 7, 1.0),
        (7, (7,), 1.0),
        ([7, 2], (7, 2), 1.0),
        ((2, 7), (7, 2), 0.0),  # order counts
        ((7, 2), 7, 0.0),  # a right beginning is not the answer
        (7, (7, 2), 0.0),
        ((), 7, 0.0),
    ],
)
def test_exact_match(answer, truth, reward: float) -> None:
    assert match_reward(answer, truth) == reward


# " the café" in tokens " the" (4 bytes), " caf" (8), "é" (10: two bytes)
TEXT, ENDS = " the café", (4, 8, 10)


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        (" the", 1.0),
        (" the café", 1.0),
        ("the", 0.0),  # the space belongs to the token
        (" th", 0.0),  # ends within a token
        (" them", 0.0),
        (" the cafe", 0.0),
        (" the cafés", 0.0),  # beyond the continuation
        ("", 0.0),
        ("\ud800", 0.0),  # half a surrogate pair has no plain UTF-8
    ],
)
def test_byte_prefix(answer: str, reward: float) -> None:
    assert prefix_match_reward(answer, TEXT, ENDS) == reward
    assert prefix_match_reward(answer, TEXT, (0, 9, *ENDS)) == reward  # not empty, and not within "é"


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=5), st.text(max_size=6))
def test_exactly_the_runs_of_whole_tokens_are_right(tokens: list[str], other: str) -> None:
    continuation = "".join(tokens)
    starts = ["".join(tokens[: n + 1]) for n in range(len(tokens))]
    boundaries = [len(start.encode("utf-8", "surrogatepass")) for start in starts]
    for start in starts:
        assert prefix_match_reward(start, continuation, boundaries) == 1.0
    assert prefix_match_reward(other, continuation, boundaries) == float(other in starts)


@pytest.mark.parametrize(
    ("match", "length", "weight", "reward", "only"),
    # (1 - w) match + w length; only: the length part counts where match is 1
    [
        (1.0, 1.0, 0.2, 1.0, 1.0),
        (1.0, 0.5, 0.2, 0.9, 0.9),
        (1.0, 0.0, 0.2, 0.8, 0.8),
        (0.0, 1.0, 0.2, 0.2, 0.0),
        (0.0, 0.0, 0.2, 0.0, 0.0),
        (0.0, 1.0, 1.0, 1.0, 0.0),
        (1.0, 0.3, 0.0, 1.0, 1.0),
    ],
)
def test_total_by_hand(match: float, length: float, weight: float, reward: float, only: float) -> None:
    assert total_reward(match, length, weight) == pytest.approx(reward)
    assert total_reward(match, length, weight, only_if_correct=True) == pytest.approx(only)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32)), min_size=1, max_size=9),
    st.floats(0, 1),
    st.booleans(),
)
def test_numbers_and_tensors_agree(pairs, weight: float, only: bool) -> None:
    match, length = torch.tensor(pairs, dtype=torch.float64).T
    rewards = total_reward(match, length, weight, only)
    assert rewards.tolist() == pytest.approx([total_reward(m, r, weight, only) for m, r in pairs])
    assert bool(((rewards >= 0) & (rewards <= 1)).all())
    assert total_reward(match, 0.5, weight, only).shape == match.shape
    assert total_reward(1.0, length, weight, only).shape == match.shape


@pytest.mark.parametrize(
    ("match", "gain", "reward", "only"),
    # (1 - 0.2) gain + 0.2 * 0.5; only: the length part counts where match is 1, whatever the gain
    [
        (1.0, 2.0, 1.7, 1.7),
        (0.0, 2.0, 1.7, 1.6),
        (1.0, -1.0, -0.7, -0.7),
        (0.0, -1.0, -0.7, -0.8),
        (0.0, 1.0, 0.9, 0.8),
        (1.0, 0.0, 0.1, 0.1),
    ],
)
def test_a_gain_takes_the_place_of_match_by_hand(match: float, gain: float, reward: float, only: float) -> None:
    assert total_reward(match, 0.5, 0.2, gain=gain) == pytest.approx(reward)
    assert total_reward(match, 0.5, 0.2, only_if_correct=True, gain=gain) == pytest.approx(only)
    found = total_reward(torch.tensor([match]), torch.tensor([0.5]), 0.2, True, torch.tensor([gain]))
    assert found.tolist() == pytest.approx([only])
