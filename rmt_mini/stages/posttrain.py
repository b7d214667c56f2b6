"""Post-training: GRPO on questions whose answers can be checked.

No second trainer: a question is a text with one position. Its trunk holds the question and then the answer; the only
position asked for is where the answer begins, and a branch sees nothing from there on. RMTTrainer runs with next-token
prediction, budget and curriculum off, so answers are never trained on as text.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import ANSWER_TOKENS, QUESTION, AnswerFormat, Chat, answer_format, encode_text, last_boxed
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.text import MOST_UNKNOWN, require_room, unknown_share
from rmt_mini.errors import UserError, logger
from rmt_mini.files import Cell, Change, ExamLine, PassRow
from rmt_mini.method.schedule import budget_of
from rmt_mini.records import Position, Rollout, Text
from rmt_mini.stages.evaluate import in_batches, matches
from rmt_mini.stages.midtrain import RMTTrainer, StepResult, asking_for
from rmt_mini.stages.statistics import GAP, SHARE, interval_of_mean
from rmt_mini.worlds.questions import Question

NONSENSE = ("", "?", "xyzzy", "I do not know")  # right answers to no question
POSTTRAINING: dict[str, Any] = {
    **dict.fromkeys(("use_ntp", "use_budget", "use_curriculum"), False),
    **{"positions_per_document": 1, "warmup_steps": 0},
}


class Exam:
    """An answer format for questions: asks as another format does, and judges by the question's own scorer."""

    def __init__(self, policy: Policy, questions: Sequence[Question], config: RMTConfig) -> None:
        base: AnswerFormat = answer_format(config.answer_format, policy.tokenizer, policy.parameters)
        if isinstance(base, Chat):
            base = Chat(policy.tokenizer, QUESTION)
        self.name, self.tokenizer, self.close = base.name, policy.tokenizer, base.close
        self.trunk, self.opening, self.cue = base.trunk, base.opening, base.cue
        self.texts: list[Text] = []
        for question in questions:
            ids, first = base.trunk(question.text)
            answer = encode_text(policy.tokenizer, question.answer)
            self.texts.append(Text(question.id, (*ids, *answer), first, asked=(len(ids),)))
        self.questions = {text.ids: question for text, question in zip(self.texts, questions, strict=True)}
        self.end = questions[0].end
        longest = max(len(text.ids) - text.places[0] for text in self.texts)
        self.answer_limit = ANSWER_TOKENS + longest if self.name == "chat" or longest > 1 else 1
        most = max(len(text.ids) for text in self.texts)
        require_room(policy.name, getattr(policy.model, "config", None), self, config, trunk=most)

    def finished(self, answer: Sequence[int]) -> bool:
        """An answer ends with its line or sentence, with its box, or at the limit."""
        if len(answer) >= self.answer_limit or answer[-1] == self.tokenizer.eos_token_id:
            return True
        text = self._text(answer)
        return last_boxed(text) is not None if self.name == "chat" else self.end in text.lstrip()

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        """Score what was said, by the scorer of the question that this trunk is."""
        said = self._text(answer)
        given = last_boxed(said) if self.name == "chat" else said.strip().split(self.end)[0]
        return 0.0 if given is None else self.questions[tuple(trunk)].score(given)

    def _text(self, answer: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(answer), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def answerable(policy: Policy, source: str, questions: Sequence[Question], config: RMTConfig) -> tuple[Question, ...]:
    """Leave out the questions that cannot be judged: their own answer is judged wrong, or nonsense right.

    Each answer is given as a model would: in the answer format, and cut where that ends an answer. A UserError refuses
    a source if those are more than half, if more than half accept the answer of the next question, or if too many of
    its tokens are unknown.
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

    pass@k = 1 - C(samples - right, k) / C(samples, k) (arXiv 2107.03374)

    Example:
        >>> pass_at_k(right=1, samples=4, k=1), pass_at_k(right=1, samples=4, k=2), pass_at_k(right=3, samples=4, k=2)
        (0.25, 0.5, 1.0)
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"right={right}, samples={samples}, k={k}; 0 <= right <= samples and 1 <= k <= samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


@torch.no_grad()
def answer_questions(policy: Policy, exam: Exam, config: RMTConfig, samples: int) -> tuple[torch.Tensor, list[Rollout]]:
    """Sample thoughts and answers to every question: right or not (questions, samples), and the rollouts, flat."""
    positions = [Position(n, text.places[0], 2, 0.0) for n, text in enumerate(exam.texts)]
    rollouts: list[Rollout] = []
    for trunks, batch, generator in in_batches(policy, exam.texts, positions, config, "exam", samples):
        asking = asking_for(config, [budget_of(config, config.steps)] * len(batch))
        rollouts += roll_out(policy, exam, trunks, batch, samples, asking, generator)
    return torch.tensor(matches(exam, exam.texts, rollouts)).view(-1, samples), rollouts


def summarize_exam(right: torch.Tensor, rollouts: Sequence[Rollout]) -> PassRow:
    """Return pass@k for k = 1, 2, 4, ... and all samples, with 95 % intervals over questions; thought length."""
    found = {k: interval_of_mean(own, SHARE) for k, own in _passes(right).items()}
    cells = {k: Cell(accuracy=interval.pop("mean"), **interval) for k, interval in found.items()}
    length, closed = (float(np.mean([getattr(one, name) for one in rollouts])) for name in ("length", "closed"))
    counts = {"questions": len(right), "samples": right.shape[1]}
    return PassRow(pass_at=cells, **counts, thought_length=length, closed_share=closed)


def exam_lines(step: int, exam: Exam, right: torch.Tensor, rollouts: Sequence[Rollout]) -> list[ExamLine]:
    """Lay out what was answered after ``step`` steps for answers.jsonl, a line for each question."""
    lengths = np.array([rollout.length for rollout in rollouts]).reshape(right.shape).mean(1).tolist()
    samples, counts = right.shape[1], right.sum(1).int().tolist()
    return [
        ExamLine(step=step, question=text.id, right=count, samples=samples, thought_length=length)
        for text, count, length in zip(exam.texts, counts, lengths, strict=True)
    ]


def exam_gain(before: torch.Tensor, after: torch.Tensor) -> dict[int, Change]:
    """Differences of pass@k, question by question, with 95 % intervals."""
    first = _passes(before)
    gaps = {k: interval_of_mean(last - first[k], GAP) for k, last in _passes(after).items()}
    return {k: Change(difference=gap.pop("mean"), **gap) for k, gap in gaps.items()}


def _passes(right: torch.Tensor) -> dict[int, np.ndarray]:
    """Estimate pass@k of each question (a row), for k = 1, 2, 4, ... and all samples."""
    samples = right.shape[1]
    ks = sorted({*(2**power for power in range(samples.bit_length())), samples})
    return {k: np.array([pass_at_k(count, samples, k) for count in right.sum(1).int().tolist()]) for k in ks}


def posttrain(
    config: RMTConfig, policy: Policy, exam: Exam, on_step: Callable[[StepResult], None] | None = None
) -> RMTTrainer:
    """Train the policy on an exam's questions by GRPO, in place. ``config`` includes POSTTRAINING."""
    if config.use_ntp or config.positions_per_document != 1:
        raise ValueError("post-training needs use_ntp=False and positions_per_document=1; see POSTTRAINING")
    trainer = RMTTrainer(config, policy, exam.texts, form=exam)
    trainer.fit(on_step)
    return trainer
