"""The cold start: a short supervised stage that teaches the answer format before RL can reward anything.

Not in the paper, whose 14B reasoning models think and box by themselves. A small model first needs two habits: to
answer after the cue, and to close its thoughts near the budget that the opening states. The thoughts are the model's
own, sampled at lengths drawn around budgets that vary by position. At every place of a thought the closing decision is
trained, close here or do not close here, and nothing else of it:

    loss = -log p(answer) - [ log p(close) at the end + sum over earlier places log(1 - p(close)) ] / places

Of an answer of several tokens, a chat's in its box, the first term is the mean. Without training of the closing tag
every thought reaches its cap, and the length reward has no spread. With the tag trained only where thoughts end, it
becomes all that the model says, and thoughts collapse to nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat, right_answer
from rmt_mini.engine.rollout import Asking, chunks, lay_out, read_branches, roll_out
from rmt_mini.engine.text import endless, generator_for
from rmt_mini.engine.tree import Trunks, backward_through_trunk
from rmt_mini.errors import NonFiniteError
from rmt_mini.method.schedule import outside
from rmt_mini.records import Position, Rollout, Text
from rmt_mini.stages.midtrain import text_loss
from rmt_mini.stages.optimizer import MasterAdamW, require_finite

LENGTH_SPREAD = 0.25  # standard deviation of the lengths around the stated budget, as a share of it


def cold_start(
    policy: Policy,
    form: AnswerFormat,
    texts: Sequence[Text],
    config: RMTConfig,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Run ``warmup_steps`` supervised steps on the policy, in place; ``on_step`` gets each one's number and losses."""
    optimizer = MasterAdamW(policy.model, config.warmup_learning_rate, config.weight_decay, config.max_grad_norm)
    stream = endless(texts, config.seed)
    for step in range(config.warmup_steps):
        chosen = [next(stream) for _ in range(config.documents_per_step)]
        try:
            losses = _step(policy, form, chosen, config, generator_for(config.seed, "warmup", step))
            losses["grad_norm"] = optimizer.step()
        except NonFiniteError as error:
            rate = config.warmup_learning_rate
            raise NonFiniteError(f"cold start, step {step}: {error}; lower warmup_learning_rate ({rate})") from error
        if on_step is not None:
            on_step(step, losses)


def _step(
    policy: Policy, form: AnswerFormat, texts: Sequence[Text], config: RMTConfig, generator: torch.Generator
) -> dict[str, float]:
    """Leave the gradients of one step on the model: one thought at each of ``warmup_positions`` positions."""
    trunks = policy.tree.read([text.ids for text in texts])
    require_finite("the hidden state of a document", torch.cat(list(trunks.hidden)))
    per_text = max(1, config.warmup_positions // len(texts))
    positions = [
        Position(n, text.places[place], 0, 0.0)
        for n, text in enumerate(texts)
        for place in sorted(torch.randperm(len(text.places), generator=generator)[:per_text].tolist())
    ]
    budgets, lengths = _draw_lengths(len(positions), config, generator)
    # capped by force, so that a thought is as long as it was drawn
    asking = Asking(budgets if config.use_budget else [None] * len(budgets), lengths, config.temperature, forced=True)
    thoughts = roll_out(policy, form, trunks, positions, 1, asking, generator)
    right = [right_answer(form, trunks.documents[one.trunk], one.index) for one in positions]
    rollouts = [replace(one, answer=tuple(answer)) for one, answer in zip(thoughts, right, strict=True)]
    leaves = trunks.detached()
    sums = {"answer_loss": 0.0, "close_loss": 0.0}
    for chunk in chunks(rollouts, lambda rollout: rollout, form, config.branch_tokens):
        answer, close = _losses(policy, form, leaves, chunk)
        close = close if config.use_thinking else torch.zeros_like(close)
        loss = (answer + close) / len(rollouts)
        require_finite("the cold start's loss", loss)
        loss.backward()
        sums["answer_loss"] += float(answer.detach()) / len(rollouts)
        sums["close_loss"] += float(close.detach()) / len(rollouts)
    keep_language = None
    if config.use_ntp and config.ntp_weight:
        keep_language = config.ntp_weight * text_loss(policy, trunks, outside(texts, []))[0]
    backward_through_trunk(trunks, leaves, keep_language)
    return sums


def _draw_lengths(count: int, config: RMTConfig, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Draw budgets log-uniformly over all that RMT will state, and lengths around them; 0 where no one thinks."""
    low, high = float(config.budget_min), float(config.budget_start)
    budgets = (low * (high / low) ** torch.rand(count, generator=generator)).round()
    lengths = budgets * (1 + LENGTH_SPREAD * torch.randn(count, generator=generator))
    lengths = lengths.round().clamp(min=1).minimum((1.5 * budgets).ceil())
    return [int(budget) for budget in budgets], [int(length) * config.use_thinking for length in lengths]


def _losses(policy: Policy, form: AnswerFormat, trunks: Trunks, rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """Sums over rollouts of the mean losses of the right answer's tokens and of the closing decisions."""
    texts = [trunks.documents[rollout.position.trunk] for rollout in rollouts]
    branches = [lay_out(form, text, rollout) for text, rollout in zip(texts, rollouts, strict=True)]
    hidden, starts = read_branches(policy, trunks, branches)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, device=policy.device)

    located = list(zip(starts, branches, strict=True))
    answering = tensor([start + place for start, branch in located for place in branch.answering])
    truths = tensor([token for rollout in rollouts for token in rollout.answer])
    tokens = tensor([len(rollout.answer) for rollout in rollouts])
    right = target_logprobs(policy.head, hidden[answering], truths) / torch.repeat_interleave(tokens, tokens)
    thinking = tensor([start + place for start, branch in located for place in branch.thinking])
    close = target_logprobs(policy.head, hidden[thinking], torch.full_like(thinking, form.close[0]))
    size = tensor([len(branch.thinking) for branch in branches])
    last = torch.zeros_like(close, dtype=torch.bool)
    last[size.cumsum(0) - 1] = True
    # log(1 - p) by expm1, and away from p = 1 where it has no finite gradient
    decided = torch.where(last, close, (-torch.expm1(close.clamp(max=-1e-6))).log())
    return -right.sum(), -(decided / torch.repeat_interleave(size, size)).sum()
