"""The sizes of the step that a benchmark measures: flags of ``rmt-mini bench``, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

from rmt_mini.config import Count, Settings, Several, Text, group

FIXED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("contenders.yaml").read_text(encoding="utf-8"))
_what, _size = group("What is measured"), group("Sizes of the step")


class Setting(Settings):
    """One step to be measured."""

    model: Text = _what("smollm2-135m", "as for run")
    corpus: Text = _what("champ", "as for run; its longest texts are used")
    dtype: Literal["auto", "float32", "bfloat16"] = _what("auto", "of all but TRL, which is tried in its own two ways")
    steps: Count = _what(5, "timed steps of each contender; one more goes before, to warm up")
    documents: Count = _size(2, "trunks of a step")
    positions: Count = _size(4, "K, on each of them")
    group_size: Several = _size(8, "G, rollouts a position")
    prefix: Count = _size(125, "tokens before a position, on average")
    thought_tokens: Count = _size(24, "of every rollout")

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return self.documents * self.positions * self.group_size
