"""The arms of a comparison: the method, its baseline, its ablations and its controls.

An arm is a name for changes of settings; everything else is the preset's, the seed included, so that arms differ only
in what they are named for. All arms take as many steps on the same documents, except ``ntp-equal-compute``.
The first rows of any table are not arms: the untrained model, answering at once (NTP) and after a thought (NTR).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError

METHOD, BASELINE = "rmt", "rpt"
BASE = {"base-ntp": "ntp", "base-ntr": "think"}  # the untrained model's two rows, and how each answers

_NO_RL = {"use_rl": False, "warmup_steps": 0}
# What the paper states and a preset may set otherwise, but for what depends on a model's size: T, B_0, the learning
# rate, documents a step, answer format, cold start. L_NTP stays a mean over its tokens where the paper writes a sum.
_PAPER = {
    "scale_advantages": True,
    "loss_per": "rollout",
    "budget_min": 1,
    "budget_decay": 0.2,
    "length_if_correct": False,
    "curriculum_start": 0.3,
    "curriculum_end": 0.7,
    "ntp_weight": 0.1,
}


def _no_budget(base: RMTConfig) -> dict[str, Any]:
    # without a budget thoughts stop at 2 budget_start, which would cut the thoughts that nobody asked to be short
    return {"use_budget": False, "budget_start": 2 * base.budget_start}


def _tiers(throughout: Iterable[float]) -> dict[str, Any]:
    return dict.fromkeys(("tier_probs_early", "tier_probs_late"), tuple(throughout))


ARMS: dict[str, Callable[[RMTConfig], dict[str, Any]]] = {
    # next-token prediction on every position, no RL: a row that the paper does not have
    "ntp": lambda base: _NO_RL,
    # the same for as many operations as RMT took, thus many more steps
    "ntp-equal-compute": lambda base: _NO_RL,
    # trains on the model's own correct rollouts as targets, plus NTP: no comparison within a group
    "sft": lambda base: {"rl_rule": "correct"},
    # RPT (arXiv 2506.08007): GRPO above the easy tier; no budget, no curriculum, no NTP
    "rpt": lambda base: {**_no_budget(base), "use_ntp": False, **_tiers((0.0, 0.5, 0.5))},
    # RLP (arXiv 2510.01265): the reward is what the thought adds to the log-probability of the text's token, and no
    # other is given; positions without regard to difficulty (RLP draws one a document, here as many as the preset has)
    "rlp": lambda base: {
        **_no_budget(base),
        "use_ntp": False,
        "use_curriculum": False,
        "reward_rule": "information-gain",
        "scale_advantages": False,
    },
    "rmt": lambda base: {},
    # the method with every value that the paper states
    "rmt-paper": lambda base: _PAPER,
    "rmt-no-budget": _no_budget,
    # B_T from the first step on: does the decay help, or its end? (by the formula of ``method.budget``, a later wing)
    "rmt-short-budget": lambda base: {
        "budget_start": max(base.budget_min, math.floor(base.budget_start * base.budget_decay + 1e-9)),
        "budget_decay": 1.0,
    },
    # the same tiers overall, in no order: p_t is the mean of p_early and p_late throughout, rounded for run.json
    "rmt-no-curriculum": lambda base: _tiers(
        round((a + b) / 2, 6) for a, b in zip(base.tier_probs_early, base.tier_probs_late, strict=True)
    ),
    # from hard to easy
    "rmt-reversed-curriculum": lambda base: {
        "tier_probs_early": base.tier_probs_late,
        "tier_probs_late": base.tier_probs_early,
    },
    "rmt-no-ntp": lambda base: {"use_ntp": False},
    # positions drawn without regard to difficulty
    "rmt-random-tokens": lambda base: {"use_curriculum": False},
    # the same RL on answers given at once: does thinking help, or the reward?
    "rl-no-think": lambda base: {"use_thinking": False, "use_budget": False},
    # rewards permuted at random: what remains is not learned from rewards
    "rmt-shuffled-reward": lambda base: {"rl_rule": "shuffled"},
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A name for changes of settings, and the arm whose operations it takes where it does not take the usual steps."""

    name: str
    changes: Mapping[str, Any]
    compute_of: str = ""

    def config(self, base: RMTConfig) -> RMTConfig:
        """Return the arm's settings, from those of the method as a preset and the user give them."""
        return base.replace(**self.changes)


def arms_named(base: RMTConfig, names: Iterable[str] = ()) -> list[Arm]:
    """Return arms of these names in the order of ARMS, always with "rmt"; rows of the untrained model are skipped.

    Without names: all, but not "rlp" in a chat, since its reward needs answers of one token. An unknown one is a
    UserError.

    Example:
        >>> {arm.name: dict(arm.changes) for arm in arms_named(RMTConfig(budget_start=16), ["rmt-no-budget"])}
        {'rmt': {}, 'rmt-no-budget': {'use_budget': False, 'budget_start': 32}}
    """
    usual = ARMS.keys() - ({"rlp"} if base.answer_format == "chat" else set())
    wanted = {*(tuple(names) or usual), METHOD} - BASE.keys()
    for name in sorted(wanted - ARMS.keys()):
        raise UserError(f"arm {name!r} is unknown; the arms are {', '.join(ARMS)}")
    compute_of = {"ntp-equal-compute": METHOD}
    return [Arm(name, changes(base), compute_of.get(name, "")) for name, changes in ARMS.items() if name in wanted]
