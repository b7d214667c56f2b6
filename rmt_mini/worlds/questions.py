"""Questions with answers that can be checked: what post-training asks.

    micro       questions of the micro-world, of a kind that neither of its texts is made of; likewise abacus
    micro-text  the calculations of its mid-training text, in that text's own words; likewise abacus-text
    abacus-all  the same, but all read-outs of a calculation: a guess is hardly ever right
    gym:TASK    a task of reasoning-gym, scored by its own scorer
    champ       CHAMP's problems, answers compared as mathematics by math-verify

A question's text ends where its answer begins.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from rmt_mini.errors import UserError, logger, refusing, require_package
from rmt_mini.records import Document
from rmt_mini.worlds import micro
from rmt_mini.worlds.corpus import champ_problems, load_corpus
from rmt_mini.worlds.micro import share_of
from rmt_mini.worlds.referee import Referee

ALL = "abacus-all"
UNREAD = 3_000_000  # a page of the mid-training text that no run reads up to, and where no search looked
OF_MICRO = {name: (one.exam, 0) for name, one in micro.WORLDS.items()}  # what is asked, from which page on
OF_MICRO |= {f"{name}-text": (one.midtrain, UNREAD) for name, one in micro.WORLDS.items()}
OF_MICRO[ALL] = OF_MICRO["abacus-text"]
EXTRA = "pip install -e '.[posttrain]'"
ANSWER_CUE = "\nAnswer:"
OTHER_FORM = re.compile(r", or (?:equivalently|approximately|an equivalent form such as) ")  # of an answer of CHAMP
GLOSS = re.compile(r" is the only possible value$| \((?:i\.e\.|no).*\)$")  # what follows such an answer
PAIRED = re.compile(r"(\*\*|[$`])(.+)\1", re.DOTALL)  # what models put around an answer


@dataclass(frozen=True, slots=True)
class Question:
    """A question and how its answers are judged."""

    id: str
    text: str  # ends where the answer begins
    answer: str  # a right one
    score: Callable[[str], float]  # of an answer: 1.0 if it is right, else 0.0
    key: str = ""  # the calculation that it asks for, or the problem, as a text of it is held out
    end: str = "\n"  # what follows an answer that is not in a chat


def load_questions(source: str, count: int, seed: int) -> tuple[Question, ...]:
    """Make or load at most ``count`` questions of different text; ``seed`` is of what is generated.

    Example:
        >>> question = load_questions("micro", count=1, seed=0)[0]
        >>> question.text, question.answer, question.score(" 3")
        ('Question: a wheel shows 2 and turns first 5, second 5. Answer:', ' 2', 0.0)
    """
    if count < 1:
        raise UserError(f"count is {count}; give at least 1 question")
    made: Iterable[Question]
    if source in OF_MICRO:
        made = _micro(*OF_MICRO[source], seed, 20 * count, all_of_it=source == ALL)  # some come twice
    elif source.startswith("gym:"):
        made = _gym(source.removeprefix("gym:"), count, seed)
    elif source == "champ":
        made = _champ()
    else:
        known = ", ".join(map(repr, OF_MICRO))
        raise UserError(f"questions {source!r} are unknown; give {known}, 'gym:TASK' or 'champ'")
    found: dict[str, Question] = {}
    for question in made:
        found.setdefault(question.text, question)
        if len(found) == count:
            break
    return tuple(found.values())


def as_document(question: Question) -> Document:
    """Return a question as text."""
    return Document(question.id, question.text, keys=(question.key or question.text,))


def as_file_name(source: str) -> str:
    """Spell a source so that a file or folder may be named after it."""
    return source.replace(":", "-")


def split_questions(questions: Sequence[Question], evaluation_fraction: float) -> tuple[list[Question], list[Question]]:
    """Hold questions out by a hash of their calculation or their text, as a corpus does with documents."""
    sides: tuple[list[Question], list[Question]] = ([], [])
    for question in questions:
        sides[share_of(question.key or question.text) < evaluation_fraction].append(question)
    if not sides[0] or not sides[1]:
        raise UserError(f"{len(questions)} questions are too few to hold some out; give more (--count)")
    return sides


def _micro(habits: micro.Habits, start: int, seed: int, pages: int, all_of_it: bool) -> Iterator[Question]:
    for page in islice(micro.stream(habits, seed, start), pages):
        place, working = next(
            (n, p.working) for n, p in enumerate(page.pieces) if p.working and p.sort == micro.CALCULABLE
        )
        said = 2 * len(working.steps) - 1 if all_of_it else 1  # words are between two read-outs
        text, answer = (
            "".join(p.text for p in part) for part in (page.pieces[:place], page.pieces[place : place + said])
        )
        end = "." if all_of_it else "\n"
        yield Question(page.id, text, answer, partial(_equal, answer.strip()), working.key, end)


def _equal(right: str, given: str) -> float:
    return float(given.strip() == right)


def _gym(task: str, count: int, seed: int) -> Iterator[Question]:
    require_package("reasoning_gym", f"questions 'gym:{task}'", EXTRA)
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise UserError(f"reasoning-gym has no task {task!r}; it has {', '.join(sorted(DATASETS)[:8])} and others")
    # 'composite', say, wants settings of its own
    with refusing(f"questions 'gym:{task}' cannot be made", "choose another task"):
        data = reasoning_gym.create_dataset(task, size=count, seed=seed)
    referee = Referee(_gym_scorer, task, count, seed)
    for number, entry in enumerate(data):
        text = entry["question"].strip() + ANSWER_CUE
        yield Question(f"{task}-{seed}-{number}", text, f" {entry['answer']}", partial(referee, number))


def _gym_scorer(task: str, count: int, seed: int) -> Callable[[int, str], float]:
    import reasoning_gym

    return partial(_by_gym, reasoning_gym.create_dataset(task, size=count, seed=seed))


def _by_gym(data: Any, number: int, given: str) -> float:
    """Score an answer as it is, then without the full stop, bold, backticks and dollars that models put around it."""
    given = given.strip()
    for answer in (given, _bare(given), _bare(given.removesuffix(".")), _bare(given).removesuffix(".")):
        with suppress(Exception):  # some scorers fail on text that they cannot read
            # a scorer gives part of the points to an answer that merely contains the right one; here that is wrong
            if data.score_answer(answer=answer, entry=data[number]) >= 1.0:
                return 1.0
    return 0.0


def _bare(text: str) -> str:
    pair = PAIRED.fullmatch(text)
    return _bare(pair[2].strip()) if pair else text


def _champ() -> list[Question]:
    require_package("math_verify", "questions 'champ'", EXTRA)
    from rmt_mini.worlds.mathematics import is_readable

    referee, problems, found = Referee(_champ_scorer), champ_problems(), []
    keys = {document.id: document.keys[0] for document in load_corpus("champ").documents}  # as a text is held out
    for problem in problems:
        text = problem["_text"].strip()
        forms = [GLOSS.sub("", form) for form in OTHER_FORM.split(problem["_answer"].strip())]
        answer = next((form for form in forms if is_readable(form, text)), None)
        if answer is not None and not text.startswith("Factorize"):  # the product equals the polynomial as it was given
            judge = partial(referee, answer, text)
            found.append(
                Question(problem["identifier"], text + ANSWER_CUE, f" {answer}", judge, keys[problem["identifier"]])
            )
    logger.info("CHAMP: %d of %d answers are left out, not mathematics", len(problems) - len(found), len(problems))
    return found


def _champ_scorer() -> Callable[[str, str, str], float]:
    from rmt_mini.worlds.mathematics import score

    score("1", "1", "")  # the first takes a second or more, which no answer should be charged for
    return lambda gold, question, given: score(given, gold, question)
