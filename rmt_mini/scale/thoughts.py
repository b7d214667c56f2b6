"""Sample thoughts and answers by whatever engine TRL drives: transformers, vLLM in the process, or a vLLM server.

Two calls to the engine a step, since the environment speaks in between:

    prompt      document up to the position, opening                         given
    completion  thought, first token of the closing tag                      sampled: 1 in the mask
                rest of the closing tag (all of it at the cap), cue          written by the environment: 0
                answer                                                       sampled: 1

This is the branch of ``engine/prompt.py`` as a row. As there, a closing that the model chose carries loss, and one that
the environment wrote at the cap does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.method.budget import thought_cap
from rmt_mini.scale.positions import Question

Logprobs = list[list[float | None]] | None
Generate = Callable[[Any, list[list[int]], int, list[int], int], tuple[list[list[int]], Logprobs]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One rollout as TRL's row.

    Attributes:
        prompt: token ids.
        completion: token ids.
        chosen: 1 for each completion token that the model chose, 0 for what the environment wrote.
        logprobs: of the completion at sampling, nats, None where the environment wrote; None altogether where the
            engine gives none.
        thought_length: tokens.
        closed: 1 where the model closed its thought, else 0.
        answer: token ids.
    """

    prompt: list[int]
    completion: list[int]
    chosen: list[int]
    logprobs: list[float | None] | None
    thought_length: int
    closed: int
    answer: list[int]


def generate_by_trl(
    trainer: Any, prompts: list[list[int]], most: int, stop: list[int], copies: int
) -> tuple[list[list[int]], Logprobs]:
    """Sample one continuation of each prompt by the engine that the trainer was set up with.

    Args:
        trainer: a GRPOTrainer.
        prompts: token ids; ``copies`` equal ones side by side.
        most: tokens at most.
        stop: tokens that end a continuation, and belong to it.
        copies: how many continuations in a row share their prompt; a vLLM server reads it once.

    Returns:
        Token ids, and their log-probabilities where the engine tells them.
    """
    with _asking(trainer, most, stop):
        ids, logprobs = trainer._generate_single_turn(prompts, None, {}, copies)
    return [list(one) for one in ids], logprobs


@contextmanager
def _asking(trainer: Any, most: int, stop: list[int]) -> Iterator[None]:
    """Set length and stop tokens for one call; TRL sets them once for a whole run."""
    ends = trainer.eos_token_ids
    trainer.eos_token_ids = stop
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        before = engine.max_completion_length, engine.generation_kwargs
        engine.max_completion_length = most
        engine.generation_kwargs = {**(before[1] or {}), "stop_token_ids": stop, "ignore_eos": True}
    else:
        settings, kwargs = trainer.generation_config, trainer.generation_kwargs
        before = settings.max_new_tokens, settings.eos_token_id
        for name, value in (("max_new_tokens", most), ("eos_token_id", stop)):
            setattr(settings, name, value)
            kwargs[name] = value
    try:
        yield
    finally:
        trainer.eos_token_ids = ends
        if trainer.use_vllm:
            engine.max_completion_length, engine.generation_kwargs = before
        else:
            for name, value in zip(("max_new_tokens", "eos_token_id"), before, strict=True):
                setattr(settings, name, value)
                kwargs[name] = value


def cut_thought(sampled: Sequence[int], close: int, cap: int) -> tuple[list[int], bool]:
    """Take what belongs to the thought, and say whether the model closed it.

    Args:
        sampled: token ids, up to the closing token or to a cap that may lie beyond this position's own.
        close: first token of the closing tag.
        cap: the longest thought here, tokens.

    Raises:
        RuntimeError: if the engine stopped for another reason; a closing that is not seen would not be trained.

    Example:
        >>> cut_thought([5, 6, 9], close=9, cap=4), cut_thought([5, 6, 7, 8, 9], close=9, cap=4)
        (([5, 6], True), ([5, 6, 7, 8], False))
    """
    kept = list(sampled[:cap])
    if close in kept:
        return kept[: kept.index(close)], True
    if len(kept) < cap:
        raise RuntimeError(
            f"the engine ended a thought after {len(kept)} of {cap} tokens without the closing token {close}"
        )
    return kept, False


def cut_answer(sampled: Sequence[int], form: AnswerFormat) -> list[int]:
    """Take the tokens up to which an answer is complete; all of them where it never is."""
    lengths = range(1, len(sampled) + 1)
    return list(sampled[: next((n for n in lengths if form.finished(sampled[:n])), len(sampled))])


def think_and_answer(
    trainer: Any, generate: Generate, form: AnswerFormat, config: RMTConfig, questions: Sequence[Question]
) -> list[Sampled]:
    """Sample a thought and an answer for each question.

    Args:
        trainer: a GRPOTrainer.
        generate: ``generate_by_trl``, or another in its place.
        form: the answer format.
        config: use_thinking, group_size.
        questions: of this process; a group's stand side by side, and may go on on the next process.

    Returns:
        A row for each question.
    """
    openings = [[*q.text.ids[: q.position.index], *form.opening(q.stated)] for q in questions]
    caps = [thought_cap(q.budget) if config.use_thinking else 0 for q in questions]
    thoughts: list[tuple[list[int], bool]] = [([], False)] * len(questions)
    told: Logprobs = None
    if config.use_thinking:
        # the longest cap of the step, not of this process: a server takes one number from all
        longest = max(thought_cap(q.budget) for q in trainer.plan.questions)
        drawn, told = generate(trainer, openings, longest, form.close[:1], config.group_size)
        thoughts = [cut_thought(row, form.close[0], cap) for row, cap in zip(drawn, caps, strict=True)]
    frames = [[*form.close, *form.cue(q.text.ids, q.position.index)] for q in questions]
    asked = [
        [*opening, *thought, *frame] for opening, (thought, _), frame in zip(openings, thoughts, frames, strict=True)
    ]
    ends = [end for end in [form.tokenizer.eos_token_id] if end is not None]
    replies, told_of_replies = generate(trainer, asked, form.answer_limit, ends, 1)
    rows = []
    for n, (opening, (thought, closed), frame) in enumerate(zip(openings, thoughts, frames, strict=True)):
        answer, written = cut_answer(replies[n], form), len(frame) - closed
        logprobs = None
        if told_of_replies is not None:
            of_thought = told[n][: len(thought) + closed] if told is not None else []
            logprobs = [*of_thought, *[None] * written, *told_of_replies[n][: len(answer)]]
        chosen = [1] * (len(thought) + closed) + [0] * written + [1] * len(answer)
        row = Sampled(opening, [*thought, *frame, *answer], chosen, logprobs, len(thought), int(closed), answer)
        rows.append(row)
    return rows
