"""Questions with answers that can be checked: what post-training asks.

    micro       questions of the micro-world, of a kind that neither of its texts is made of
    micro-text  the calculations of its mid-training text, in that text's own words
    gym:TASK    a task of reasoning-gym, scored by its own scorer
    champ       CHAMP's problems, answers compared as mathematics by math-verify

A question's text ends where its answer begins.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rmt_mini.errors import UserError
from rmt_mini.worlds import micro
from rmt_mini.worlds.corpus import champ_problems, share_of

logger = logging.getLogger(__name__)

SOURCES = "'micro', 'micro-text', 'gym:TASK' or 'champ'"
UNREAD = 3_000_000  # a page of the mid-training text that no run reads up to, and where no search looked
OF_MICRO = {"micro": (micro.EXAM, 0), "micro-text": (micro.MIDTRAINING, UNREAD)}  # what is asked, from which page on
ANSWER_CUE = "\nAnswer:"
SECONDS = 2  # for comparing two answers as mathematics
LONGEST = 80  # characters of an answer that is worth comparing


@dataclass(frozen=True, slots=True)
class Question:
    """A question and how its answers are judged.

    Attributes:
        id: unique among its source's.
        text: ends where the answer begins.
        answer: a right one, as text.
        score: takes an answer, returns 1.0 if it is right, else 0.0.
    """

    id: str
    text: str
    answer: str
    score: Callable[[str], float]


def load_questions(source: str, count: int, seed: int) -> tuple[Question, ...]:
    """Make or load questions, all of different text.

    Args:
        source: 'micro', 'micro-text', 'gym:TASK' or 'champ'.
        count: at most so many.
        seed: of what is generated; CHAMP's are taken in order.

    Raises:
        UserError: if the source is unknown, or lacks its package.

    Example:
        >>> question = load_questions("micro", count=1, seed=0)[0]
        >>> question.text, question.answer, question.score(" 3")
        ('Question: a wheel shows 2 and turns first 5, second 5. Answer:', ' 2', 0.0)
    """
    if count < 1:
        raise UserError(f"count is {count}; give at least 1 question")
    if source in OF_MICRO:
        return _micro(source, count, seed)
    if source.startswith("gym:"):
        return _gym(source.removeprefix("gym:"), count, seed)
    if source == "champ":
        return _champ(count)
    raise UserError(f"questions {source!r} are unknown; give {SOURCES}")


def as_file_name(source: str) -> str:
    """Spell a source so that a file or folder may be named after it.

    Example:
        >>> as_file_name("gym:chain_sum")
        'gym-chain_sum'
    """
    return source.replace(":", "-")


def split_questions(questions: Sequence[Question], evaluation_fraction: float) -> tuple[list[Question], list[Question]]:
    """Hold questions out by a hash of their text, as a corpus does with documents.

    Raises:
        UserError: if either side is empty.

    Example:
        >>> train, held_out = split_questions(load_questions("micro", 40, 0), 0.25)
        >>> len(train) + len(held_out)
        40
    """
    sides: tuple[list[Question], list[Question]] = ([], [])
    for question in questions:
        sides[share_of(question.text) < evaluation_fraction].append(question)
    if not sides[0] or not sides[1]:
        raise UserError(f"{len(questions)} questions are too few to hold some out; give more (--count)")
    return sides


def _micro(source: str, count: int, seed: int) -> tuple[Question, ...]:
    found: dict[str, Question] = {}
    habits, start = OF_MICRO[source]
    pages = micro.stream(habits, seed, start)
    for _ in range(20 * count):  # some come twice
        page = next(pages)
        place = next(n for n, piece in enumerate(page.pieces) if piece.sort == micro.CALCULABLE)
        text, answer = "".join(piece.text for piece in page.pieces[:place]), page.pieces[place].text
        found.setdefault(text, Question(page.id, text, answer, _same_as(answer)))
        if len(found) == count:
            break
    return tuple(found.values())


def _same_as(answer: str) -> Callable[[str], float]:
    return lambda given: float(given.strip() == answer.strip())


def _gym(task: str, count: int, seed: int) -> tuple[Question, ...]:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise UserError(f"questions 'gym:{task}' need the extra 'posttrain'; install it: pip install -e '.[posttrain]'")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise UserError(f"reasoning-gym has no task {task!r}; it has {', '.join(sorted(DATASETS)[:8])} and others")
    try:
        data = reasoning_gym.create_dataset(task, size=count, seed=seed)
    except Exception as error:  # 'composite', say, wants settings of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"questions 'gym:{task}' cannot be made ({reason}); choose another task") from error

    def scorer(entry: dict[str, Any]) -> Callable[[str], float]:
        def score(given: str) -> float:
            # a scorer gives part of the points for an answer that merely contains the right one; here it is right or
            # it is not
            try:
                return float(data.score_answer(answer=given.strip(), entry=entry) >= 1.0)
            except Exception:  # some scorers choke on what is no answer at all
                return 0.0

        return score

    found: dict[str, Question] = {}
    for number, entry in enumerate(data):
        text = entry["question"].strip() + ANSWER_CUE
        found.setdefault(text, Question(f"{task}-{seed}-{number}", text, f" {entry['answer']}", scorer(entry)))
    return tuple(found.values())


def _champ(count: int) -> tuple[Question, ...]:
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("questions 'champ' need the extra 'posttrain'; install it: pip install -e '.[posttrain]'")
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every comparison without a time limit
    found, left_out = [], 0
    for problem in champ_problems():
        answer = problem["_answer"].split(", or")[0].strip()  # the rest says the same in other words
        gold = _parsed(answer)
        if gold is None:
            left_out += 1
            continue
        text = problem["_text"].strip() + ANSWER_CUE
        found.append(Question(problem["identifier"], text, f" {answer}", _equals(gold)))
    logger.info("CHAMP: %d of %d answers cannot be compared as mathematics, left out", left_out, left_out + len(found))
    return tuple(found[:count])


def _limit() -> int | None:
    """Seconds math-verify may take: it counts them by a signal, which only the main thread receives."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None


def _parsed(answer: str) -> Any:
    """Read an answer as mathematics; None where it is not, or could take for ever."""
    from math_verify import parse
    from sympy import Basic

    towers = answer.count("^") + answer.count("!") > 1 or "**" in answer  # 9^9^9 would be worked out
    if re.fullmatch(r"[A-Za-z][A-Za-z ,.']+", answer):  # "No" would be read as N times o
        return None
    if len(answer) > LONGEST or "\n" in answer or (towers and any(c.isdigit() for c in answer) and _limit() is None):
        return None
    found = parse(f"${answer.strip().strip('$')}$", parsing_timeout=_limit())
    return found if found and isinstance(found[0], Basic) else None


def _equals(gold: Any) -> Callable[[str], float]:
    def score(given: str) -> float:
        from math_verify import verify

        parsed = _parsed(given)
        return float(parsed is not None and verify(gold, parsed, timeout_seconds=_limit()))

    return score
