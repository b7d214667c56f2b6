"""The arms of a comparison: the method, its baseline, its ablations and its controls, all in arms.yaml.

An arm is a name for changes of settings; everything else is the preset's, the seed included, so that arms differ only
in what they are named for. All arms take as many steps on the same documents, except ``ntp-equal-compute``.
The first rows of any table are not arms: the untrained model, answering at once (NTP) and after a thought (NTR).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import yaml

from rmt_mini.config import RMTConfig, expression
from rmt_mini.errors import UserError

METHOD, BASELINE = "rmt", "rpt"
BASE = {"base-ntp": "ntp", "base-ntr": "think"}  # the untrained model's two rows, and how each answers

# name -> "set", "compute" and "as_long_as", each where the arm has it
ARMS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


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
    return [_arm(name, base) for name in ARMS if name in wanted]


def _arm(name: str, base: RMTConfig) -> Arm:
    def mean(one: Iterable[float], other: Iterable[float]) -> tuple[float, ...]:
        return tuple(round((a + b) / 2, 6) for a, b in zip(one, other, strict=True))

    parts, names = ARMS[name], dict(base) | {"floor": floor, "mean": mean}
    computed = {field: expression(text)(**names) for field, text in parts.get("compute", {}).items()}
    return Arm(name, parts.get("set", {}) | computed, parts.get("as_long_as", ""))
