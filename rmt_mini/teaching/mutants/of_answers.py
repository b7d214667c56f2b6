"""Wrong answers to the exercises on lesson 1, next-token reasoning and its reward."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rmt_mini.engine.prompt import last_boxed


def _known(truth: Sequence[int]) -> None:
    if not truth:
        raise ValueError("truth is empty")


def first_token_only(answer: Sequence[int], truth: Sequence[int]) -> float:
    """You compare the first tokens and no others: a right beginning is paid whatever follows."""
    _known(truth)
    return float(list(answer[:1]) == list(truth[:1]))


def beginning_is_enough(answer: Sequence[int], truth: Sequence[int]) -> float:
    """An answer that stops too early is paid, an empty one as well: compare the lengths too."""
    _known(truth)
    return float(list(answer) == list(truth[: len(answer)]))


def more_is_fine(answer: Sequence[int], truth: Sequence[int]) -> float:
    """You look at as many tokens as the truth has, so that an answer may go on behind it; it is one guess, no more."""
    _known(truth)
    return float(list(answer[: len(truth)]) == list(truth))


def any_order(answer: Sequence[int], truth: Sequence[int]) -> float:
    """The order of the tokens plays no part with you: a set or a sorted list forgets it."""
    _known(truth)
    return float(sorted(answer) == sorted(truth))


def many_guesses(answer: Sequence[int], truth: Sequence[int]) -> float:
    """You pay where every true token occurs somewhere in the answer: listing the whole vocabulary would always win."""
    _known(truth)
    return float(set(truth) <= set(answer))


def truth_value(answer: Sequence[int], truth: Sequence[int]) -> bool:
    """You return True or False; a reward is a number, 1.0 or 0.0, which others weigh and take means of."""
    _known(truth)
    return list(answer) == list(truth)


def empty_truth_passes(answer: Sequence[int], truth: Sequence[int]) -> float:
    """An empty truth passes without a word, and the empty answer earns 1 for it; raise ValueError."""
    return float(list(answer) == list(truth))


MATCH_REWARD = (
    first_token_only, beginning_is_enough, more_is_fine, any_order, many_guesses, truth_value, empty_truth_passes,
)  # fmt: skip


def counts_characters(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """You count characters; the boundaries are offsets in bytes, and one character may be up to four of them."""
    return float(bool(answer) and continuation.startswith(answer) and len(answer) in boundaries)


def half_a_token(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """An answer may end inside a token with you: a single space would then be right before nearly every word."""
    return float(bool(answer) and continuation.startswith(answer))


def empty_earns(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """The empty answer earns 1 where 0 is among the boundaries: it begins every text, so rule it out by name."""
    said = answer.encode()
    return float(continuation.encode().startswith(said) and len(said) in boundaries)


def one_token_only(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """Only the first token is right with you; an answer may end at any of the boundaries."""
    said = answer.encode()
    return float(bool(said) and continuation.encode().startswith(said) and len(said) == min(boundaries))


def off_by_one_at_the_end(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """Off by one: a boundary is where a token ends, so it equals the answer's length in bytes, not its last index."""
    said = answer.encode()
    return float(bool(said) and continuation.encode().startswith(said) and len(said) - 1 in boundaries)


def strips_spaces(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """You strip the answer; a space is a byte like any other, and the space before a word belongs to its token."""
    said = answer.strip().encode()
    return float(bool(said) and continuation.encode().startswith(said) and len(said) in boundaries)


def lengths_only(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """You compare lengths alone: any answer that is as long as some tokens of the text is paid."""
    return float(bool(answer) and len(answer.encode()) in boundaries)


PREFIX_MATCH_REWARD = (
    counts_characters, half_a_token, empty_earns, one_token_only, off_by_one_at_the_end, strips_spaces, lengths_only,
)  # fmt: skip

BOX, CLOSE = "\\boxed{", "</think>"


def _answer(response: str) -> str:
    return response.rpartition(CLOSE)[2] if CLOSE in response else ""


def first_closing_brace(response: str) -> str | None:
    """The box ends at the first closing brace with you, as with a regular expression's .*?: braces inside it nest."""
    found = re.findall(r"\\boxed\{(.*?)\}", _answer(response))
    return found[-1] if found else None


def last_closing_brace(response: str) -> str | None:
    """The box goes on to the last closing brace of the answer; it ends where its own opening brace is closed."""
    answer = _answer(response)
    start, end = answer.rfind(BOX), answer.rfind("}")
    return answer[start + len(BOX) : end] if 0 <= start < end else None


def first_box(response: str) -> str | None:
    """You take the first box; a model may correct itself, and of several boxes the last one counts."""
    answer = _answer(response)
    starts = [found.start() for found in re.finditer(re.escape(BOX), answer)]
    complete = [box for start in starts if (box := _box_at(answer, start)) is not None]
    return complete[0] if complete else None


def _box_at(answer: str, start: int) -> str | None:
    depth = 1
    for end in range(start + len(BOX), len(answer)):
        depth += (answer[end] == "{") - (answer[end] == "}")
        if depth == 0:
            return answer[start + len(BOX) : end]
    return None


def looks_into_the_thought(response: str) -> str | None:
    """You search the whole response: a box that stands inside the thought passes for the answer."""
    return last_boxed(response) if CLOSE in response else None


def first_tag(response: str) -> str | None:
    """You cut at the first </think>; a thought may spell the tag, so that a part of it passes for the answer."""
    return last_boxed(response.partition(CLOSE)[2])


def never_closed(response: str) -> str | None:
    """Where there is no </think> you search the thought itself; a thought that was never closed has no answer."""
    return last_boxed(response.rpartition(CLOSE)[2])


def unclosed_box(response: str) -> str | None:
    """A box that is never closed passes for an answer, up to the end of the text; only a complete box counts."""
    answer = _answer(response)
    start = answer.rfind(BOX)
    if start < 0:
        return None
    found = _box_at(answer, start)
    return answer[start + len(BOX) :] if found is None else found


def gives_up_at_the_last(response: str) -> str | None:
    """Where the last box is never closed you give up; a complete box before it is still the answer."""
    answer = _answer(response)
    start = answer.rfind(BOX)
    return None if start < 0 else _box_at(answer, start)


BOXED_ANSWER = (
    first_closing_brace, last_closing_brace, first_box, looks_into_the_thought, first_tag, never_closed, unclosed_box,
    gives_up_at_the_last,
)  # fmt: skip


def _parts(tokens: Sequence[int], sampled: Sequence[bool]) -> tuple[list[int], list[int]]:
    """Return what the model wrote before the cue, and its answer."""
    begins = len(tokens)
    while begins and sampled[begins - 1]:
        begins -= 1
    own = [token for token, itself in zip(tokens[:begins], sampled, strict=False) if itself]
    return own, list(tokens[begins:])


def _length(length: int, budget: int) -> float:
    return max(0.0, 1 - abs(length - budget) / budget)


def _thought(own: Sequence[int], close: int, budget: int) -> float:
    return _length(len(own) - own.count(close), budget)


def first_tag_anywhere(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """You cut at the first closing tag of the whole sequence; the text may hold one, and then the thought is judged."""
    cut = list(tokens).index(close)
    own = [token for token, itself in zip(tokens[:cut], sampled, strict=False) if itself]
    answer = [token for token, itself in zip(tokens[cut + 1 :], sampled[cut + 1 :], strict=True) if itself]
    return (1 - length_weight) * (answer == [truth]) + length_weight * _length(len(own), budget)


def cue_is_judged(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """You look for the truth behind the closing tag, sampled or not: the cue repeats the text, which may hold it."""
    own, answer = _parts(tokens, sampled)
    cut = len(tokens) - len(answer)
    while sampled[cut - 1] is False and tokens[cut - 1] != close:
        cut -= 1
    return (1 - length_weight) * (truth in tokens[cut:]) + length_weight * _thought(own, close, budget)


def thought_is_judged(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """You look for the truth among all sampled tokens: a thought that names every token would always be paid."""
    own, answer = _parts(tokens, sampled)
    return (1 - length_weight) * (truth in own + answer) + length_weight * _thought(own, close, budget)


def two_guesses(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """The truth may stand anywhere in the answer with you, among other guesses; an answer is one guess."""
    own, answer = _parts(tokens, sampled)
    return (1 - length_weight) * (truth in answer) + length_weight * _thought(own, close, budget)


def last_token_is_judged(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """You judge the last token alone; what the model answered before it is part of its guess."""
    own, _ = _parts(tokens, sampled)
    return (1 - length_weight) * (tokens[-1] == truth) + length_weight * _thought(own, close, budget)


def tag_counts(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """The closing token counts as part of the thought where the model wrote it: the length is off by one."""
    own, answer = _parts(tokens, sampled)
    return (1 - length_weight) * (answer == [truth]) + length_weight * _length(len(own), budget)


def answer_counts(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """The answer's tokens count as part of the thought: its length is what was sampled before the closing tag."""
    own, answer = _parts(tokens, sampled)
    length = _thought([*own, *answer], close, budget)
    return (1 - length_weight) * (answer == [truth]) + length_weight * length


def weights_swapped(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """The weights are swapped: w belongs to the length reward, and 1 - w to the match."""
    own, answer = _parts(tokens, sampled)
    return length_weight * (answer == [truth]) + (1 - length_weight) * _thought(own, close, budget)


def match_in_full(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """The match counts in full, without its weight 1 - w: the reward then rises above 1."""
    own, answer = _parts(tokens, sampled)
    return float(answer == [truth]) + length_weight * _thought(own, close, budget)


ROLLOUT_REWARD = (
    first_tag_anywhere, cue_is_judged, thought_is_judged, two_guesses, last_token_is_judged, tag_counts, answer_counts,
    weights_swapped, match_in_full,
)  # fmt: skip


def _commonest(tokens: Sequence[int]) -> int:
    return Counter(tokens).most_common(1)[0][0]


def _luck(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    count, said, true = len(truths), Counter(answers), Counter(truths)
    return {
        "accuracy": sum(answer == truth for answer, truth in zip(answers, truths, strict=True)) / count,
        "constant": true[_commonest(training)] / count,
        "shuffled": sum(said[token] * true[token] for token in said) / count**2,
    }


def peeks_at_the_truths(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """The constant answer is chosen by looking at the truths; choose it in training, or the control has cheated."""
    return _luck(answers, truths, truths) | {"constant": Counter(truths).most_common(1)[0][1] / len(truths)}


def measured_in_training(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """The constant answer is measured on the tokens it was chosen by; it has to be held against the truths."""
    share = Counter(training).most_common(1)[0][1] / len(training)
    return _luck(answers, truths, training) | {"constant": share}


def commonest_answer(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """The constant is the model's own commonest answer; a control must not depend on the model that it controls."""
    said = Counter(answers)
    constant = max(said, key=lambda token: (said[token], -answers.index(token)))
    return _luck(answers, truths, training) | {"constant": list(truths).count(constant) / len(truths)}


def every_token_alike(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """You take one over the number of different tokens for luck; tokens are not equally frequent, nor are answers."""
    return _luck(answers, truths, training) | {"shuffled": 1 / len(set(truths))}


def not_squared(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """You divide by n where n squared belongs: a product of two counts becomes a product of two shares."""
    found = _luck(answers, truths, training)
    return found | {"shuffled": found["shuffled"] * len(truths)}


def shifted_by_one(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """Answers and truths are shifted by one: an answer is held against the truth of the next position."""
    hits = sum(answer == truth for answer, truth in zip(answers, truths[1:], strict=False))
    return _luck(answers, truths, training) | {"accuracy": hits / len(truths)}


def floor_division(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """Shares are rounded down to whole numbers (//): everything below 1 becomes 0."""
    return {name: float(int(share)) for name, share in _luck(answers, truths, training).items()}


AGAINST_LUCK = (
    peeks_at_the_truths, measured_in_training, commonest_answer, every_token_alike, not_squared, shifted_by_one,
    floor_division,
)  # fmt: skip
