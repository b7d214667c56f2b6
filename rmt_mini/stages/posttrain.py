"""Post-training: GRPO on questions whose answers can be checked.

No second trainer: a question is a text with one position. Its trunk holds the question and, behind it, the answer;
the only position asked for is where the answer begins, and a branch sees nothing from there on. RMTTrainer then runs
with next-token prediction, budget and curriculum off, as the paper's post-training does. (So answers are never
trained on as text; only the rewards speak of them.)

Only what the model sampled after its thought is judged, so nothing that stands in a question or a thought can fake a
reward.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import comb
from scipy.stats import bootstrap

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import ANSWER_TOKENS, QUESTION, AnswerFormat, Chat, answer_format, encode_text, last_boxed
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.text import MOST_UNKNOWN, generator_for, require_room, unknown_share
from rmt_mini.errors import UserError
from rmt_mini.method.schedule import budget_of
from rmt_mini.records import Position, Rollout, Text
from rmt_mini.stages.evaluate import ROWS, batches, read_for
from rmt_mini.stages.midtrain import RMTTrainer, StepResult, asking_for
from rmt_mini.stages.statistics import RESAMPLES
from rmt_mini.worlds.questions import Question

logger = logging.getLogger(__name__)

NONSENSE = ("", "?", "xyzzy", "I do not know")  # right answers to no question

POSTTRAINING: dict[str, Any] = {
    "use_ntp": False,
    "use_budget": False,
    "use_curriculum": False,
    "positions_per_document": 1,
    "warmup_steps": 0,
}


class Exam:
    """An answer format for questions: asks as another format does, and judges by the question's own scorer.

    Args:
        policy: the model that will be asked.
        questions: all that will be.
        config: answer_format, budgets.

    Raises:
        UserError: if the model cannot read as far as the longest question and its thought may reach.
    """

    def __init__(self, policy: Policy, questions: Sequence[Question], config: RMTConfig) -> None:
        self.base: AnswerFormat = answer_format(
            config.answer_format, policy.tokenizer, policy.parameters, turn=policy.turn
        )
        if isinstance(self.base, Chat):  # a template that states today's date goes on with the same one
            policy.turn = self.base.turn
            self.base = Chat(policy.tokenizer, QUESTION, policy.turn)
        self.name, self.tokenizer, self.close = self.base.name, policy.tokenizer, self.base.close
        self.questions: dict[tuple[int, ...], Question] = {}
        self.texts: list[Text] = []
        longest = 1
        for question in questions:
            ids, first = self.base.trunk(question.text)
            answer = encode_text(policy.tokenizer, question.answer)
            trunk = (*ids, *answer)
            self.questions[trunk] = question
            self.texts.append(Text(question.id, trunk, first, asked=(len(ids),)))
            longest = max(longest, len(answer))
        boxed = self.name == "chat"
        self.answer_limit = ANSWER_TOKENS + longest if boxed or longest > 1 else 1
        most = max(len(text.ids) for text in self.texts)
        require_room(policy.name, getattr(policy.model, "config", None), self, config, trunk=most)

    def trunk(self, text: str) -> tuple[list[int], int]:
        """As the format that asks."""
        return self.base.trunk(text)

    def opening(self, budget: int | None) -> list[int]:
        """As the format that asks."""
        return self.base.opening(budget)

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        """As the format that asks."""
        return self.base.cue(trunk, index)

    def finished(self, answer: Sequence[int]) -> bool:
        """An answer ends with its line, with its box, or at the limit."""
        if len(answer) >= self.answer_limit or answer[-1] == self.tokenizer.eos_token_id:
            return True
        text = self._text(answer)
        return last_boxed(text) is not None if self.name == "chat" else "\n" in text.lstrip()

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        """Score what was said, by the scorer of the question that this trunk is."""
        said = self._text(answer)
        given = last_boxed(said) if self.name == "chat" else said.strip().split("\n")[0]
        return 0.0 if given is None else self.questions[tuple(trunk)].score(given)

    def _text(self, answer: Sequence[int]) -> str:
        decoded: str = self.tokenizer.decode(list(answer), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded


def answerable(policy: Policy, source: str, questions: Sequence[Question], config: RMTConfig) -> tuple[Question, ...]:
    """Leave out the questions that cannot be judged: their own answer is judged wrong, or nonsense right.

    Each answer is given as a model would give it: in the answer format, and cut where that ends an answer.

    Args:
        policy: the model that will be asked.
        source: of the questions, for the message.
        questions: all of them.
        config: answer_format.

    Raises:
        UserError: if more than half of the questions would be left out, or if more than half accept the answer of
            the question after them, which is another one; or if too much of them is unknown to the tokenizer.
    """
    exam = Exam(policy, questions, config)
    share = unknown_share(policy.tokenizer, exam.texts)
    if share > MOST_UNKNOWN:
        raise UserError(
            f"questions {source!r}: {share:.0%} of the tokens are unknown to the tokenizer of {policy.name!r} (at most "
            f"{MOST_UNKNOWN:.0%} may be); choose other questions, or a model whose tokenizer covers all characters"
        )

    def judged(answer: str, text: Text) -> float:
        said = f"\\boxed{{{answer.strip()}}}" if exam.name == "chat" else answer
        ids = encode_text(policy.tokenizer, said)
        end = bisect_left(range(1, len(ids)), True, key=lambda length: exam.finished(ids[:length])) + 1
        return exam.judge(ids[:end], text.ids, text.places[0])

    asked = list(zip(questions, [*questions[1:], *questions[:1]], exam.texts, strict=True))
    wrong = {text.id for own, _, text in asked if not judged(own.answer, text)}
    fooled = {text.id for _, _, text in asked if any(judged(answer, text) for answer in NONSENSE)}
    loose = [text.id for own, other, text in asked if own.answer != other.answer and judged(other.answer, text)]
    found = (
        f"questions {source!r}, answer format {exam.name!r}: of {len(questions)} questions, the own answer of "
        f"{len(wrong)} is judged wrong, and {len(fooled)} accept nonsense, {len(loose)} the answer of another question"
    )
    if 2 * max(len(wrong | fooled), len(loose)) > len(questions):
        other = "" if exam.name == "chat" else " or, for answers of several lines, --answer-format chat"
        raise UserError(f"{found}; choose other questions (--questions){other}")
    if wrong | fooled:
        logger.info("%s; left out: %d", found, len(wrong | fooled))
    return tuple(question for question in questions if question.id not in wrong | fooled)


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Estimate the chance that at least one of k answers is right, from more samples of one question.

    pass@k = 1 - C(samples - right, k) / C(samples, k)

    Args:
        right: right answers among the samples.
        samples: n, at least k.
        k: 1 or more.

    Raises:
        ValueError: if k, right or samples do not fit together.

    Source:
        Chen et al., arXiv 2107.03374.

    Example:
        >>> pass_at_k(right=1, samples=4, k=1), pass_at_k(right=1, samples=4, k=2), pass_at_k(right=3, samples=4, k=2)
        (0.25, 0.5, 1.0)
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"right={right}, samples={samples}, k={k}; 0 <= right <= samples and 1 <= k <= samples")
    return float(1 - comb(samples - right, k, exact=True) / comb(samples, k, exact=True))


@torch.no_grad()
def answer_questions(policy: Policy, exam: Exam, config: RMTConfig, samples: int) -> tuple[torch.Tensor, list[Rollout]]:
    """Sample thoughts and answers to every question of an exam.

    Returns:
        Right or not, (questions, samples), and the rollouts in the same order, flat.
    """
    positions = [Position(n, (text.asked or (0,))[0], 2, 0.0) for n, text in enumerate(exam.texts)]
    rollouts: list[Rollout] = []
    for number, batch in enumerate(batches(positions, max(1, ROWS // samples))):
        trunks = read_for(policy, exam.texts, batch)
        asking = asking_for(config, [budget_of(config, config.steps)] * len(batch))
        generator = generator_for(config.seed, "exam", number)
        rollouts += roll_out(policy, exam, trunks, batch, samples, asking, generator)
    right = [
        exam.judge(rollout.answer, exam.texts[rollout.position.trunk].ids, rollout.position.index)
        for rollout in rollouts
    ]
    return torch.tensor(right).view(len(exam.texts), samples), rollouts


def summarize_exam(right: torch.Tensor, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Return pass@k for k = 1, 2, 4, ... and all samples, with 95 % intervals over questions; thought length."""
    table = {str(k): _interval(_estimates(right, k)) for k in _ks(right.shape[1])}
    lengths = [rollout.length for rollout in rollouts]
    closed = [rollout.closed for rollout in rollouts]
    return {
        "pass_at": table,
        "questions": len(right),
        "samples": right.shape[1],
        "thought_length": float(np.mean(lengths)),
        "closed_share": float(np.mean(closed)),
    }


def exam_lines(step: int, exam: Exam, right: torch.Tensor, rollouts: Sequence[Rollout]) -> list[dict[str, Any]]:
    """Lay out what was answered after ``step`` steps for answers.jsonl, a line for each question."""
    samples = right.shape[1]
    lengths = np.array([rollout.length for rollout in rollouts]).reshape(right.shape).mean(1)
    return [
        {
            "step": step,
            "question": text.id,
            "right": int(row.sum()),
            "samples": samples,
            "thought_length": float(length),
        }
        for text, row, length in zip(exam.texts, right, lengths, strict=True)
    ]


def exam_gain(before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
    """Differences of pass@k, question by question, with 95 % intervals."""
    gains = {}
    for k in _ks(before.shape[1]):
        found = _interval(_estimates(after, k) - _estimates(before, k))
        gains[str(k)] = {"difference": found.pop("accuracy"), **found}
    return gains


def _ks(samples: int) -> list[int]:
    return sorted({*(2**power for power in range(samples.bit_length())), samples})


def _estimates(right: torch.Tensor, k: int) -> np.ndarray:
    return np.array([pass_at_k(int(row.sum()), len(row), k) for row in right])


def _interval(values: np.ndarray) -> dict[str, Any]:
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample; a single value says nothing of its spread
        low, high = (mean, mean) if len(values) > 1 else (-1.0 if values.min() < 0 else 0.0, 1.0)
        return {"accuracy": mean, "low": low, "high": high, "n": len(values)}
    found = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return {"accuracy": mean, "low": float(found.low), "high": float(found.high), "n": len(values)}


def posttrain(
    config: RMTConfig,
    policy: Policy,
    questions: Sequence[Question],
    on_step: Callable[[StepResult], None] | None = None,
) -> RMTTrainer:
    """Train the policy on questions by GRPO, in place.

    Args:
        config: settings, with POSTTRAINING in force.
        policy: the model.
        questions: to train on.
        on_step: sees each step as it ends.

    Returns:
        The trainer, which knows its texts.

    Raises:
        ValueError: if the configuration would train on the answers as text.
    """
    if config.use_ntp or config.positions_per_document != 1:
        raise ValueError("post-training needs use_ntp=False and positions_per_document=1; see POSTTRAINING")
    exam = Exam(policy, questions, config)
    trainer = RMTTrainer(config, policy, exam.texts, form=exam)
    trainer.fit(on_step)
    return trainer
