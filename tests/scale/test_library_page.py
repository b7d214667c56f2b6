"""docs/library.md, run from top to bottom in TRL's own trainer."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes import byte_tokenizer, tiny_model

pytest.importorskip("trl")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def test_every_piece_works_inside_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    given: dict[str, Any] = {"model": model, "tokenizer": byte_tokenizer()}
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    exec(compile(code, str(PAGE), "exec"), given)
    history = given["trainer"].state.log_history
    assert [one["step"] for one in history if "loss" in one] == [1, 2, 3, 4]
    lengths = [one["rewards/as_long_as_the_budget/mean"] for one in history if "loss" in one]
    assert all(0 <= value <= 1 for value in lengths)
    assert any(lengths)
    assert all(
        one["loss"] > 0.1 for one in history if "loss" in one
    )  # lambda times the text's loss: TRL's own is near 0
    assert any(not tensor.equal(before[name]) for name, tensor in model.named_parameters())
    assert sum(given["sampler"].counts) == len(given["order"]) == 8
    assert given["right"](["x>9."], ["9."], [[1, 2]]) == [1.0]
    assert torch.is_tensor(given["tiers"])
