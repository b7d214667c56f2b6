"""What each process of a benchmark measures; ``bench/bench.py`` starts them and sets their results side by side.

    python -m rmt_mini.bench.parts PART SETTING      both as JSON; the result is the last line of the output

Operations are counted as useful arithmetic alone, whatever is really done:

    2 x parameters of the layers x tokens read
    2 x parameters of the output embedding x tokens whose logits are wanted
    twice as much again for a backward pass

Attention's own products are left out (a few percent at these lengths); so are padding, masks and repeated work, which
only lower the share of the machine's peak that a stage reaches.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rmt_mini.bench import contenders
from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.model import Policy, choose_device, load_policy, locate_model
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, lay_out
from rmt_mini.engine.text import to_texts
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.records import Judged, Position, Rollout, Text
from rmt_mini.runs.plan import product_rate
from rmt_mini.stages.difficulty import Pool
from rmt_mini.stages.material import format_for
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.worlds.corpus import load_corpus

SPACING = 4  # tokens between the positions of a document
AFTER = 24  # tokens of a document behind its positions
GPU_BRANCH_TOKENS = 16384  # in one pass, as the preset gpu has it: a GPU is idle with the few that suit a CPU's memory


@dataclass(frozen=True)
class Setting:
    """One step to be measured.

    Attributes:
        model: as for ``load_policy``.
        corpus: as for ``load_corpus``; its longest texts serve.
        dtype: of the tree, generate and the padded update; TRL is tried in its own two ways.
        documents: trunks of a step.
        positions: K, positions on each of them.
        group_size: G.
        prefix: tokens before a position, on average.
        thought_tokens: of every rollout, no more and no fewer.
        steps: timed steps; one more goes before, to warm up.
    """

    model: str = "smollm2-135m"
    corpus: str = "champ"
    dtype: str = "auto"
    documents: int = 2
    positions: int = 4
    group_size: int = 8
    prefix: int = 125
    thought_tokens: int = 24
    steps: int = 5

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return self.documents * self.positions * self.group_size


def material(setting: Setting, policy: Policy) -> tuple[RMTConfig, list[Text]]:
    """Return RMT's settings for a measured step, and the documents, cut behind their positions."""
    config = RMTConfig(
        model=setting.model,
        dtype=setting.dtype,  # type: ignore[arg-type]  # RMTConfig checks it
        group_size=setting.group_size,
        positions_per_document=setting.positions,
        documents_per_step=setting.documents,
        document_tokens=setting.prefix + SPACING * setting.positions // 2 + AFTER,
        min_document_tokens=1,
        learning_rate=1e-6,
        answer_format="continuation",
        branch_tokens=GPU_BRANCH_TOKENS if policy.device.type == "cuda" else RMTConfig().branch_tokens,
    )
    longest = sorted(load_corpus(setting.corpus).documents, key=lambda document: -len(document.text))
    form = format_for(policy, config, -(-setting.thought_tokens // 2))  # half of the longest thought
    texts = sorted(to_texts(longest, form, config, "longest"), key=lambda text: -len(text.ids))
    if len(texts) < setting.documents:
        raise UserError(
            f"corpus {setting.corpus!r} gives {len(texts)} texts of up to {config.document_tokens} tokens, and a step "
            f"reads documents ({setting.documents}); lower --documents"
        )
    return config, texts[: setting.documents]


def positions_for(setting: Setting) -> list[Position]:
    """Return positions around the prefix length, on every document."""
    first = setting.prefix - SPACING * (setting.positions - 1) // 2
    places = [max(1, first + SPACING * number) for number in range(setting.positions)]
    return [Position(n, index, 0, 0.0) for n in range(setting.documents) for index in places]


def prompts_for(setting: Setting, policy: Policy) -> list[list[int]]:
    """Return what another library is asked to continue: the prefix of every position, and the opening."""
    config, texts = material(setting, policy)
    opening = format_for(policy, config).opening(config.budget_start)
    return [[*texts[p.trunk].ids[: p.index], *opening] for p in positions_for(setting)]


class MeasuredStep(RMTTrainer):
    """RMT's own step at given positions, with thoughts of a given length, and coins for rewards: all groups heard."""

    def __init__(self, setting: Setting, policy: Policy) -> None:
        config, texts = material(setting, policy)
        super().__init__(config, policy, texts, _coins)
        self.setting = setting

    def ask(self, budget: int, positions: Sequence[Position]) -> Asking:
        """Ask for thoughts of exactly the length that is measured."""
        count = len(positions)
        return Asking([budget] * count, [self.setting.thought_tokens] * count, forced=True)

    def choose(self, step: int, texts: Sequence[Text], trunks: Trunks) -> Pool:
        """Choose the positions that are measured."""
        return Pool(positions_for(self.setting))


def _coins(rollouts: Sequence[Rollout], form: AnswerFormat, trunks: Trunks, config: RMTConfig) -> list[Judged]:
    return [Judged(r, n % 2, 0.0, n % 2, 1.0 if n % 2 else -1.0) for n, r in enumerate(rollouts)]


def _operations(policy: Policy, read: int, wanted: int) -> float:
    """Count the operations of a forward pass over ``read`` tokens that wants the logits of some."""
    embedding = policy.model.get_input_embeddings().weight
    head = embedding.numel()
    tied = policy.model.get_output_embeddings().weight is embedding
    layers = policy.parameters - head * (1 if tied else 2)
    return float(2 * (layers * read + head * wanted))


def tree(setting: Setting) -> dict[str, Any]:
    """Time RMT's step on the document tree: rollouts with the reading of the trunk, and update."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    trainer = MeasuredStep(setting, policy)
    seen = [trainer.step(number, trainer.texts) for number in range(setting.steps + 1)]
    branches = [lay_out(trainer.form, trainer.texts[j.rollout.position.trunk].ids, j.rollout) for j in seen[-1].judged]
    trunk = sum(len(text.ids) for text in trainer.texts)
    branch = sum(len(one.tokens) for one in branches)
    wanted = sum(len(one.decisions[0]) for one in branches)
    # sampling reads a group's opening once, and wants the logits of what is sampled
    shared = len(trainer.form.opening(trainer.config.budget_start)) * (
        setting.rollouts - setting.rollouts // setting.group_size
    )
    metrics = [result.metrics for result in seen[1:]]
    return {
        "rollout_seconds": [one.rollout_seconds for one in metrics],
        "update_seconds": [one.update_seconds for one in metrics],
        "seconds": [one.rollout_seconds + one.update_seconds for one in metrics],
        "rollout_operations": _operations(policy, trunk + branch - shared, wanted),
        # the trunk's forward pass is the rollouts'; everything else goes forward and backward here
        "update_operations": 3 * _operations(policy, trunk + branch, wanted + trunk) - _operations(policy, trunk, 0),
        "tokens": trunk + branch,
        "dtype": str(policy.dtype).removeprefix("torch."),
    }


def _timed(setting: Setting, work: Callable[[], Any]) -> list[float]:
    seconds = []
    for _ in range(setting.steps + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def generate(setting: Setting, continuous: bool = False) -> dict[str, Any]:
    """Time transformers' generate, or its continuous batching, on the same prompts."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    prompts = prompts_for(setting, policy)
    sample = contenders.generate_continuously if continuous else contenders.generate
    return {
        "seconds": _timed(setting, lambda: sample(policy, prompts, setting.group_size, setting.thought_tokens)),
        "dtype": str(policy.dtype).removeprefix("torch."),
    }


def padded(setting: Setting, micro_batch: int) -> dict[str, Any]:
    """Time an update on whole padded rows."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    trainer = MeasuredStep(setting, policy)
    judged = trainer.step(0, trainer.texts).judged  # real rollouts to train on
    rows = []
    for one in judged:
        position = one.rollout.position
        before = list(trainer.texts[position.trunk].ids[: position.index])
        branch = lay_out(trainer.form, trainer.texts[position.trunk].ids, one.rollout)
        rows.append(([*before, *branch.tokens, one.rollout.answer[-1]], len(before) + len(branch.opening)))
    documents = [text.ids for text in trainer.texts]

    def update() -> None:
        contenders.padded_update(policy, trainer.optimizer, rows, documents, micro_batch)

    return {
        "seconds": _timed(setting, update),
        "micro_batch": micro_batch,
    }


def trl(setting: Setting, dtype: str, micro_batch: int) -> dict[str, Any]:
    """Time TRL's GRPOTrainer on the same prompts."""
    policy = load_policy(setting.model, "auto", "auto")
    prompts = [policy.tokenizer.decode(ids) for ids in prompts_for(setting, policy)]
    del policy
    arguments = (setting.group_size, setting.thought_tokens, setting.steps + 1, dtype, micro_batch)
    seconds = contenders.trl_step(locate_model(setting.model), prompts, *arguments)
    return {"seconds": seconds, "dtype": dtype, "micro_batch": micro_batch}


def sweep(setting: Setting, field: str, values: Sequence[int]) -> dict[str, Any]:
    """Time RMT's step while one size changes."""
    points = []
    for value in values:
        size: dict[str, Any] = {field: value}
        points.append({"value": value, **tree(replace(setting, **size))})
    return {"points": points}


def limits(setting: Setting) -> dict[str, Any]:
    """Measure the machine: matrix products by dtype, operations a second; bandwidth of a copy, bytes a second."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    device, width = policy.device, policy.model.config.hidden_size
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = min(_timed(setting, lambda: target.copy_(source)))
    return {
        "products": {name: product_rate(device, dtype, 2048, 2048) for name, dtype in dtypes.items()},
        "products_at_model_width": {name: product_rate(device, dtype, 1024, width) for name, dtype in dtypes.items()},
        "copy_bandwidth": 2 * source.numel() * source.element_size() / best,
    }


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    part.__name__: part for part in (limits, tree, generate, padded, trl, sweep)
}


def main() -> None:
    """Run one part; its setting and arguments come as JSON."""
    part, setting, more = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    found = PARTS[part](Setting(**setting), **more) | {"peak_memory_mb": peak_memory_mb(choose_device())}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
