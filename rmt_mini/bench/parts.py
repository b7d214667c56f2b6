"""What each process of a benchmark measures: the tree, what one would use instead at its best, the machine's limits.

    python -m rmt_mini.bench.parts PART SETTING MORE      SETTING and MORE as JSON; the result is the last line

Where the others' work differs from the tree's it is less: no closing tag, cue and answer after a thought, no next-token
loss on the rest of the document. Operations are useful arithmetic alone: 2 x parameters of the layers x tokens read,
2 x parameters of the output embedding x logits wanted, twice as much again for a backward pass. Attention's own
products, padding and repeated work are left out, which only lowers the share of the peak that a stage reaches.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from rmt_mini.bench.sizes import FIXED, Setting
from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.model import Policy, choose_device, load_policy, locate_model
from rmt_mini.engine.rollout import Asking, lay_out
from rmt_mini.engine.text import format_for
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.records import Judged, Position, Rollout, Text
from rmt_mini.runs.capacity import product_rate
from rmt_mini.stages.difficulty import Pool
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.optimizer import MasterAdamW
from rmt_mini.worlds.corpus import load_corpus

SPACING = 4  # tokens between the positions of a document
AFTER = 24  # tokens of a document after its positions
GPU_BRANCH_TOKENS = 16384  # in one pass, as in the preset gpu
WARM = 8  # tokens of a prompt in TRL's first step on a CPU, which is not timed
LOOP = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(100_000))"
Json = dict[str, Any]


def material(setting: Setting, policy: Policy) -> tuple[RMTConfig, list[Text]]:
    """Return RMT's settings, and the documents: the corpus's longest, joined where none is long enough, and cut."""
    config = RMTConfig(
        model=setting.model,
        dtype=setting.dtype,
        group_size=setting.group_size,
        positions_per_document=setting.positions,
        documents_per_step=setting.documents,
        document_tokens=setting.prefix + SPACING * setting.positions // 2 + AFTER,
        branch_tokens=GPU_BRANCH_TOKENS if policy.device.type == "cuda" else RMTConfig().branch_tokens,
        **FIXED["rmt"],
    )
    form = format_for(policy, config, -(-setting.thought_tokens // 2))  # half of the longest thought
    wanted = len(form.trunk("")[0]) + config.document_tokens
    longest = sorted(load_corpus(setting.corpus).documents, key=lambda document: -len(document.text))
    texts = []
    for number in range(setting.documents):
        joined = accumulate((one.text for one in longest[number :: setting.documents]), "{}\n\n{}".format)
        enough = next((found for found in map(form.trunk, joined) if len(found[0]) >= wanted), None)
        if enough is None:
            found = f"corpus {setting.corpus!r} is too short for {setting.documents} documents of {wanted} tokens"
            raise UserError(f"{found}; lower --documents or --prefix, or give more text")
        texts.append(Text(f"document {number}", tuple(enough[0][:wanted]), enough[1]))
    return config, texts


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


def _coins(rollouts: Sequence[Rollout], *_: object) -> list[Judged]:
    return [Judged(one, n % 2, 0.0, n % 2, 1.0 if n % 2 else -1.0) for n, one in enumerate(rollouts)]


class MeasuredStep(RMTTrainer):
    """RMT's own step at given positions, with thoughts of a given length, and coins for rewards: all groups train."""

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


def _operations(policy: Policy, read: int, wanted: int) -> float:
    """Count the operations of a forward pass over ``read`` tokens that wants the logits of some."""
    embedding = policy.model.get_input_embeddings().weight
    head = embedding.numel()
    tied = policy.model.get_output_embeddings().weight is embedding
    return float(2 * ((policy.parameters - head * (1 if tied else 2)) * read + head * wanted))


def tree(setting: Setting) -> Json:
    """Time RMT's step on the document tree: rollouts with the reading of the trunk, and update."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    trainer = MeasuredStep(setting, policy)
    seen = [trainer.step(number, trainer.texts) for number in range(setting.steps + 1)]
    branches = [lay_out(trainer.form, trainer.texts[j.rollout.position.trunk].ids, j.rollout) for j in seen[-1].judged]
    trunk = sum(len(text.ids) for text in trainer.texts)
    branch = sum(len(one.tokens) for one in branches)
    wanted = sum(len(one.decisions[0]) for one in branches)
    # sampling reads a group's opening once, and wants the logits of what is sampled
    groups = setting.rollouts // setting.group_size
    shared = len(trainer.form.opening(trainer.config.budget_start)) * (setting.rollouts - groups)
    metrics = [result.metrics for result in seen[1:]]
    return {
        "rollout_seconds": [one.rollout_seconds for one in metrics],
        "update_seconds": [one.update_seconds for one in metrics],
        "seconds": [one.rollout_seconds + one.update_seconds for one in metrics],
        "trunk_seconds": [one.trunk_seconds for one in metrics],  # of both, those for the documents themselves
        "rollout_operations": _operations(policy, trunk + branch - shared, wanted),
        # the trunk's forward pass is the rollouts'; everything else goes forward and backward here
        "update_operations": 3 * _operations(policy, trunk + branch, wanted + trunk) - _operations(policy, trunk, 0),
        "tokens": trunk + branch,
        "dtype": str(policy.dtype).removeprefix("torch."),
    }


@contextmanager
def another_program() -> Iterator[None]:
    """Keep one core busy, by a process that ends with the block or, should this process be killed, with it."""
    with subprocess.Popen([sys.executable, "-c", LOOP, str(os.getpid())]) as other:
        try:
            yield
        finally:
            other.kill()


def busy(setting: Setting) -> Json:
    """Time RMT's step while another program computes."""
    with another_program():
        return tree(setting)


def _timed(setting: Setting, work: Callable[[], Any]) -> list[float]:
    ends = []
    for _ in range(setting.steps + 1):
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return [end - start for start, end in pairwise(ends)]


@torch.no_grad()
def sample(policy: Policy, prompts: Sequence[Sequence[int]], setting: Setting) -> int:
    """Sample by transformers' generate, all rows in one batch with its cache; returns the number of new tokens."""
    pad = policy.tokenizer.pad_token_id or policy.tokenizer.eos_token_id
    rows = [torch.tensor(prompt, device=policy.device) for prompt in prompts]
    left = partial(pad_sequence, batch_first=True, padding_side="left")
    found = policy.model.generate(
        input_ids=(ids := left(rows, padding_value=pad)),
        attention_mask=left([torch.ones_like(row) for row in rows]),
        num_return_sequences=setting.group_size,
        min_new_tokens=setting.thought_tokens,
        max_new_tokens=setting.thought_tokens,
        pad_token_id=pad,
        **FIXED["generate"],
    )
    return int(found.shape[0] * (found.shape[1] - ids.shape[1]))


def generate(setting: Setting) -> Json:
    """Time transformers' generate on the same prompts."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    seconds = _timed(setting, partial(sample, policy, prompts_for(setting, policy), setting))
    return {"seconds": seconds, "dtype": str(policy.dtype).removeprefix("torch.")}


Row = tuple[Sequence[int], int]  # tokens, and the first place whose token has a loss


def padded_update(
    policy: Policy, optimizer: MasterAdamW, rows: Sequence[Row], documents: Sequence[Row], micro_batch: int
) -> None:
    """Update on padded rows, ``micro_batch`` at a time, each with its own prefix, and on the documents' next tokens."""
    parts = [(rows[start : start + micro_batch], 1.0) for start in range(0, len(rows), micro_batch)]
    for part, weight in [*parts, (documents, 0.1)]:
        ids = pad_sequence([torch.tensor(tokens) for tokens, _ in part], batch_first=True).to(policy.device)
        wanted = pad_sequence([torch.arange(len(tokens)) >= first for tokens, first in part], batch_first=True)[:, 1:]
        hidden = policy.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        loss = F.cross_entropy(policy.head(hidden[wanted]).float(), ids[:, 1:][wanted])
        (weight * loss).backward()
    optimizer.step()


def padded(setting: Setting, micro_batch: int) -> Json:
    """Time an update on padded rows."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    trainer = MeasuredStep(setting, policy)
    rows: list[Row] = []
    for one in trainer.step(0, trainer.texts).judged:  # real rollouts to train on
        position, ids = one.rollout.position, trainer.texts[one.rollout.position.trunk].ids
        branch = lay_out(trainer.form, ids, one.rollout)
        row = [*ids[: position.index], *branch.tokens, one.rollout.answer[-1]]
        rows.append((row, position.index + len(branch.opening)))
    documents: list[Row] = [(text.ids, 1) for text in trainer.texts]
    update = partial(padded_update, policy, trainer.optimizer, rows, documents, micro_batch)
    return {"seconds": _timed(setting, update), "micro_batch": micro_batch}


def trl(setting: Setting, dtype: str, micro_batch: int, continuous: bool = False) -> Json:
    """Time TRL's GRPOTrainer, or its ``continuous`` batching; ``dtype`` is that of the passes, weights are float32."""
    from datasets import Dataset
    from transformers import TrainerCallback

    library: Any = import_module("trl")
    policy = load_policy(setting.model, "auto", "auto")
    prompts = prompts_for(setting, policy)
    warm = [ids[-WARM:] for ids in prompts] if policy.device.type == "cpu" else prompts
    asked = [policy.tokenizer.decode(ids) for ids in [*warm, *prompts * setting.steps]]
    del policy
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        settings = library.GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=setting.rollouts // micro_batch,
            num_generations=setting.group_size,
            max_completion_length=setting.thought_tokens,
            generation_kwargs={"min_new_tokens": setting.thought_tokens},
            max_steps=setting.steps + 1,
            bf16=dtype == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            use_transformers_continuous_batching=continuous,
            **FIXED["trl"],
        )
        library.GRPOTrainer(
            model=locate_model(setting.model),
            reward_funcs=lambda completions, **_: [float(n % 2) for n in range(len(completions))],  # all groups train
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": asked}),
            callbacks=[Clock()],
        ).train()
    return {"seconds": [end - start for start, end in pairwise(ends)], "dtype": dtype, "micro_batch": micro_batch}


def limits(setting: Setting) -> Json:
    """Measure the machine: matrix products by dtype, operations a second; bandwidth of a copy, bytes a second."""
    device = choose_device()
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = min(_timed(setting, lambda: target.copy_(source)))
    return {
        "products": {name: product_rate(device, dtype, 2048, 2048) for name, dtype in dtypes.items()},
        "copy_bandwidth": 2 * source.numel() * source.element_size() / best,
    }


PARTS: dict[str, Callable[..., Json]] = {part.__name__: part for part in (limits, tree, busy, generate, padded, trl)}

if __name__ == "__main__":
    name, measured, more = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    result = PARTS[name](Setting(**measured), **more) | {"peak_memory_mb": peak_memory_mb(choose_device())}
    sys.stdout.write("\n" + json.dumps(result))
