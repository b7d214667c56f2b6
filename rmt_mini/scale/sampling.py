"""Which positions does a step think about, under which budgets, and what is thought and answered there?

Entropies are shared between processes to the last bit, so every process draws the same set C and nothing has to be
sent. TRL fixes its data set before training; ours has K * N places a step, which are filled when the step begins.
Thoughts and answers come from the engine that TRL drives, in two calls, since the environment writes in between:

    prompt      document up to the position, opening                         given
    completion  thought, first token of the closing tag                      sampled: 1 in the mask
                rest of the closing tag (all of it at the cap), cue          written by the environment: 0
                answer                                                       sampled: 1
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmt_mini import method
from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.text import QUANTILE_TEXTS, endless
from rmt_mini.errors import UserError
from rmt_mini.records import Position, Text

Read = Callable[[Sequence[Text]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class AskedPosition:
    """One position of C: its document, and its budget B_t in tokens; the opening states it where budgets are used."""

    text: Text
    position: Position
    budget: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step trains on."""

    step: int  # t
    budget: int  # B_t, tokens
    texts: tuple[Text, ...]  # N documents
    questions: tuple[AskedPosition, ...]  # C, by document and index; K * N of them
    masks: tuple[Tensor, ...]  # bool (T,) by document: the tokens that the next-token loss trains on, none in C

    @property
    def ntp_tokens(self) -> int:
        """Tokens of the next-token loss in the whole step, over all processes."""
        return sum(int(mask.sum()) for mask in self.masks)


class Positions:
    """Draw the positions, budgets and masks of step ``step``, which the callback sets."""

    def __init__(self, config: RMTConfig, texts: Sequence[Text]) -> None:
        fewest = min(len(text.places) for text in texts)
        if fewest < config.positions_per_document:
            why = f"but the shortest text has {fewest} positions; lower it or raise --min-document-tokens"
            raise UserError(f"positions_per_document is {config.positions_per_document}, {why}")
        self.config, self.texts, self.step = config, texts, 0
        self.sampler = method.sampler_for(config)
        self.thresholds = config.tier_thresholds if config.tier_rule == "fixed" else None

    def draw(self, read: Read) -> StepPlan:
        """Draw the step; ``read`` gives the entropies of documents' tokens, (T_n,) each, in nats, on the CPU."""
        config, size = self.config, self.config.documents_per_step
        if self.thresholds is None:
            sample = self.texts[:QUANTILE_TEXTS]
            measured = [found[list(text.places)] for text, found in zip(sample, read(sample), strict=True)]
            self.thresholds = method.quantile_thresholds(torch.cat(measured), config.tier_thresholds)
        texts = tuple(islice(endless(self.texts, config.seed, self.step * size), size))
        pool: list[Position] = []
        for n, (text, entropy) in enumerate(zip(texts, read(texts), strict=True)):
            tiers = method.assign_tiers(entropy, self.thresholds).tolist()
            pool += [Position(n, index, tiers[index], float(entropy[index])) for index in text.places]
        chosen = method.draw(self.sampler, pool, config.positions_per_document * size, self.step)
        budget = method.budget_of(config, self.step)
        budgets = zip(chosen, method.budgets_for(config, budget, chosen), strict=True)
        questions = tuple(AskedPosition(texts[position.trunk], position, own) for position, own in budgets)
        return StepPlan(self.step, budget, texts, questions, tuple(method.outside(texts, chosen)))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next draws depend on, as JSON keeps it."""
        sampler = self.sampler.state_dict()
        return sampler | {"generator": sampler["generator"].tolist(), "thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another, of the same settings and texts."""
        generator = torch.tensor(state["generator"], dtype=torch.uint8)
        self.sampler.load_state_dict({"generator": generator, "counts": state["counts"]})
        self.thresholds = state["thresholds"] and (state["thresholds"][0], state["thresholds"][1])


Logprobs = list[list[float | None]] | None
Generate = Callable[[Any, list[list[int]], int, list[int], int], tuple[list[list[int]], Logprobs]]


class Sampled(NamedTuple):
    """One rollout in token ids, by the names of TRL's rollout hook."""

    prompt_ids: list[int]
    completion_ids: list[int]
    env_mask: list[int]  # 1 for each completion token that the model chose, 0 for what the environment wrote
    logprobs: list[float | None] | None  # at sampling, nats, None where the environment wrote; None without any
    thought_length: int
    closed: int  # 1 where the model closed its thought
    answer: list[int]  # the end of the completion


def generate_by_trl(
    trainer: Any, prompts: list[list[int]], most: int, stop: list[int], copies: int
) -> tuple[list[list[int]], Logprobs]:
    """Sample one continuation of each prompt, of at most ``most`` tokens, with the first of ``stop`` as its last.

    ``copies`` prompts in a row are equal: a vLLM server reads them once. Returns token ids, and their log-probabilities
    where the engine gives them.
    """
    trainer.eos_token_ids = stop  # TRL sets them once for a whole run
    if trainer.use_vllm:
        engine, own = trainer.vllm_generation, {"stop_token_ids": stop, "ignore_eos": True}
        engine.max_completion_length, engine.generation_kwargs = most, {**(engine.generation_kwargs or {}), **own}
    else:
        trainer.generation_config.update(max_new_tokens=most, eos_token_id=stop)
        trainer.generation_kwargs |= {"max_new_tokens": most, "eos_token_id": stop}
    ids, logprobs = trainer._generate_single_turn(prompts, None, {}, copies)
    return [list(one) for one in ids], logprobs


def cut_thought(sampled: Sequence[int], close: int, cap: int) -> tuple[list[int], bool]:
    """Return the thought's tokens, and whether the model closed it by token ``close`` within ``cap`` tokens."""
    kept = list(sampled[:cap])
    if close in kept:
        return kept[: kept.index(close)], True
    if len(kept) < cap:  # a closing that is not seen would not be trained
        ended = f"the engine ended a thought after {len(kept)} of {cap} tokens"
        raise RuntimeError(f"{ended} without the closing token {close}")
    return kept, False


def think_and_answer(
    trainer: Any, generate: Generate, form: AnswerFormat, config: RMTConfig, questions: Sequence[AskedPosition]
) -> list[Sampled]:
    """Sample a thought and an answer for each question of this process; those of a group are side by side."""
    stated = [form.opening(q.budget if config.use_budget else None) for q in questions]
    openings = [[*q.text.ids[: q.position.index], *opening] for q, opening in zip(questions, stated, strict=True)]
    drawn: list[list[int]] = [[] for _ in questions]
    of_thoughts: Logprobs = [[] for _ in questions]
    if config.use_thinking:
        # the longest cap of the step, not of this process: a server takes one number from all
        longest = max(method.thought_cap(q.budget) for q in trainer.plan.questions)
        drawn, of_thoughts = generate(trainer, openings, longest, form.close[:1], config.group_size)
    caps = [method.thought_cap(q.budget) * config.use_thinking for q in questions]
    thoughts = [cut_thought(row, form.close[0], cap) for row, cap in zip(drawn, caps, strict=True)]
    suffixes = [[*form.close, *form.cue(q.text.ids, q.position.index)] for q in questions]
    asked = [[*o, *thought, *suffix] for o, (thought, _), suffix in zip(openings, thoughts, suffixes, strict=True)]
    ends = [end for end in [form.tokenizer.eos_token_id] if end is not None]
    replies, of_replies = generate(trainer, asked, form.answer_limit, ends, 1)
    rows = []
    for n, (opening, (thought, closed), suffix) in enumerate(zip(openings, thoughts, suffixes, strict=True)):
        complete = next((k for k in range(1, len(replies[n])) if form.finished(replies[n][:k])), len(replies[n]))
        answer, sampled, written = list(replies[n][:complete]), len(thought) + closed, len(suffix) - closed
        logprobs = None
        if of_thoughts is not None and of_replies is not None:
            logprobs = [*of_thoughts[n][:sampled], *[None] * written, *of_replies[n][: len(answer)]]
        chosen = [1] * sampled + [0] * written + [1] * len(answer)
        rows.append(Sampled(opening, [*thought, *suffix, *answer], chosen, logprobs, len(thought), int(closed), answer))
    return rows
