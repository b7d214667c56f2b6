"""What each process of a benchmark measures: the tree, what one would use instead at its best, the machine's limits.

    python -m rmt_mini.bench.parts PART SETTING MORE      SETTING and MORE as JSON; the result is the last line

All get the same positions, rollout counts and thought lengths. Where the others' work differs it is less: no closing
tag, cue and answer after a thought, no next-token loss on the rest of the document.

Operations are counted as useful arithmetic alone: 2 x parameters of the layers x tokens read, 2 x parameters of the
output embedding x tokens whose logits are wanted, twice as much again for a backward pass. Attention's own products are
left out (a few percent at these lengths); so are padding, masks and repeated work, which only lower the share of the
machine's peak that a stage reaches.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.model import Policy, choose_device, load_policy, locate_model
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, lay_out
from rmt_mini.engine.text import format_for, to_texts
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
Json = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One step to be measured."""

    model: str = "smollm2-135m"
    corpus: str = "champ"  # its longest texts are used
    dtype: str = "auto"  # of all but TRL, which is tried in its own two ways
    documents: int = 2  # trunks of a step
    positions: int = 4  # K, on each of them
    group_size: int = 8  # G
    prefix: int = 125  # tokens before a position, on average
    thought_tokens: int = 24  # of every rollout
    steps: int = 5  # that are timed; one more goes before, to warm up

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return self.documents * self.positions * self.group_size


def material(setting: Setting, policy: Policy) -> tuple[RMTConfig, list[Text]]:
    """Return RMT's settings for a measured step, and the documents, cut after their positions."""
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


def _coins(rollouts: Sequence[Rollout], form: AnswerFormat, trunks: Trunks, config: RMTConfig) -> list[Judged]:
    return [Judged(r, n % 2, 0.0, n % 2, 1.0 if n % 2 else -1.0) for n, r in enumerate(rollouts)]


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


@torch.no_grad()
def sample(policy: Policy, prompts: Sequence[Sequence[int]], setting: Setting) -> int:
    """Sample by transformers' generate, all rows in one batch with its cache; returns the number of new tokens."""
    longest = max(map(len, prompts))
    pad = policy.tokenizer.pad_token_id or policy.tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=policy.device)
    out = policy.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        num_return_sequences=setting.group_size,
        min_new_tokens=setting.thought_tokens,
        max_new_tokens=setting.thought_tokens,
        pad_token_id=pad,
        use_cache=True,  # a policy's config says no, since the tree keeps its own
    )
    return int(out.shape[0] * (out.shape[1] - longest))


@torch.no_grad()
def sample_continuously(policy: Policy, prompts: Sequence[Sequence[int]], setting: Setting) -> int:
    """Sample by transformers' continuous batching; returns the number of new tokens."""
    from transformers import GenerationConfig

    made: Any = GenerationConfig
    settings = made(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=setting.thought_tokens, eos_token_id=-1, pad_token_id=0
    )
    rows = [list(row) for row in prompts for _ in range(setting.group_size)]
    found = policy.model.generate_batch(rows, generation_config=settings, progress_bar=False)
    return sum(len(one.generated_tokens) for one in found.values())


def generate(setting: Setting, continuous: bool = False) -> Json:
    """Time transformers' generate, or its continuous batching, on the same prompts."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    prompts = prompts_for(setting, policy)
    once = sample_continuously if continuous else sample
    seconds = _timed(setting, lambda: once(policy, prompts, setting))
    return {"seconds": seconds, "dtype": str(policy.dtype).removeprefix("torch.")}


def padded_update(
    policy: Policy,
    optimizer: MasterAdamW,
    rows: Sequence[tuple[Sequence[int], int]],
    documents: Sequence[Sequence[int]],
    micro_batch: int,
) -> None:
    """Update on padded rows, ``micro_batch`` at a time, each with its own prefix, and on the documents' next tokens.

    A row is its tokens, and the first place whose token has a loss.
    """
    parts = [(rows[start : start + micro_batch], 1.0) for start in range(0, len(rows), micro_batch)]
    parts.append(([(document, 1) for document in documents], 0.1))
    for part, weight in parts:
        longest = max(len(tokens) for tokens, _ in part)
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens, _ in part], device=policy.device)
        places = [(n, place) for n, (tokens, first) in enumerate(part) for place in range(first, len(tokens))]
        row, place = torch.tensor(places, device=policy.device).t()
        hidden = policy.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits = policy.head(hidden[row, place - 1]).float()
        loss = F.cross_entropy(logits, ids[row, place], reduction="sum") * weight / len(places)
        loss.backward()
    optimizer.step()


def padded(setting: Setting, micro_batch: int) -> Json:
    """Time an update on padded rows."""
    policy = load_policy(setting.model, "auto", setting.dtype)
    trainer = MeasuredStep(setting, policy)
    rows = []
    for one in trainer.step(0, trainer.texts).judged:  # real rollouts to train on
        position, ids = one.rollout.position, trainer.texts[one.rollout.position.trunk].ids
        branch = lay_out(trainer.form, ids, one.rollout)
        row = [*ids[: position.index], *branch.tokens, one.rollout.answer[-1]]
        rows.append((row, position.index + len(branch.opening)))
    documents = [text.ids for text in trainer.texts]
    update = partial(padded_update, policy, trainer.optimizer, rows, documents, micro_batch)
    return {"seconds": _timed(setting, update), "micro_batch": micro_batch}


def trl(setting: Setting, dtype: str, micro_batch: int) -> Json:
    """Time TRL's GRPOTrainer on the same prompts; ``dtype`` is that of the passes, weights are float32."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    library: Any = import_module("trl")
    policy, folder = load_policy(setting.model, "auto", "auto"), locate_model(setting.model)
    prompts = [policy.tokenizer.decode(ids) for ids in prompts_for(setting, policy)]
    del policy
    steps, length = setting.steps + 1, setting.thought_tokens
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
            max_completion_length=length,
            generation_kwargs={"min_new_tokens": length},
            max_steps=steps,
            learning_rate=1e-6,
            temperature=1.0,
            beta=0.0,
            bf16=dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=0,
        )
        trainer = library.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            ),
            reward_funcs=lambda completions, **_: [float(n % 2) for n in range(len(completions))],  # all groups train
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": prompts * steps}),
            processing_class=AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
            callbacks=[Clock()],
        )
        trainer.train()
    return {"seconds": [end - start for start, end in pairwise(ends)], "dtype": dtype, "micro_batch": micro_batch}


def sweep(setting: Setting, field: str, values: Sequence[int]) -> Json:
    """Time RMT's step while one size changes."""
    sizes: list[Json] = [{field: value} for value in values]
    return {"points": [{"value": size[field], **tree(replace(setting, **size))} for size in sizes]}


def limits(setting: Setting) -> Json:
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


PARTS: dict[str, Callable[..., Json]] = {part.__name__: part for part in (limits, tree, generate, padded, trl, sweep)}

if __name__ == "__main__":
    name, measured, more = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    result = PARTS[name](Setting(**measured), **more) | {"peak_memory_mb": peak_memory_mb(choose_device())}
    sys.stdout.write("\n" + json.dumps(result))
