"""The sizes of the step that a benchmark measures: flags of ``rmt-mini bench``, read without torch."""

from collections.abc import Sequence
from typing import Any, Literal

from rmt_mini.config import Count, Settings, Several, Text, data, group
from rmt_mini.errors import UserError

FIXED: dict[str, Any] = data("bench/contenders.yaml")
SWEEPS: dict[str, list[int]] = FIXED["sweeps"]
ROWS: tuple[str, ...] = tuple(FIXED["takes"])
_what, _size = group("What is measured"), group("Sizes of the step")


class Setting(Settings):
    """One step to be measured."""

    model: Text = _what("smollm2-135m", "as for run")
    corpus: Text = _what("champ", "as for run; its longest texts are used, joined where a prefix needs more")
    dtype: Literal["auto", "float32", "bfloat16"] = _what("auto", "of all but TRL, which is tried in its own two ways")
    steps: Count = _what(5, "timed steps of a contender; one more goes before, to warm up")
    trl_steps: Count = _what(1, "timed steps of TRL, which takes many times as long")
    documents: Count = _size(2, "trunks of a step")
    positions: Count = _size(4, "K, on each of them")
    group_size: Several = _size(8, "G, rollouts a position")
    prefix: Count = _size(125, "tokens before a position, on average")
    long_prefix: Count = _size(500, "the same, where the tree and TRL are compared once more")
    thought_tokens: Count = _size(24, "of every rollout")

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return self.documents * self.positions * self.group_size


def rows_named(names: Sequence[str]) -> list[str]:
    """Return the rows that are asked for, in their order; none names all, and ``sweeps`` all sweeps."""
    asked = {one for name in names or ROWS for one in (SWEEPS if name == "sweeps" else [name.replace("-", "_")])}
    if unknown := sorted(asked.difference(ROWS)):
        raise UserError(f"part {unknown[0]!r} is unknown; the parts are sweeps, {', '.join(ROWS)}")
    return [row for row in ROWS if row in asked]
