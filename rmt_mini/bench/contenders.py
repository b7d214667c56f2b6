"""What one would use instead, each at its best: TRL's GRPOTrainer, transformers' generate, a plain padded update.

All get the positions, rollout counts and thought lengths that the document tree gets. Where this work and theirs
differ, theirs is less: no closing tag, cue and answer after a thought, no next-token loss on the rest of the document.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

from rmt_mini.engine.model import Policy
from rmt_mini.stages.optimizer import MasterAdamW


def trl_step(
    model: str, prompts: Sequence[str], group_size: int, new_tokens: int, steps: int, dtype: str, micro_batch: int
) -> list[float]:
    """Train by TRL's GRPOTrainer; returns the seconds of every step but the first, which warms up.

    Weights and optimizer are float32; ``dtype`` is that of the forward and backward passes.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    trl: Any = import_module("trl")
    rows = len(prompts) * group_size
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = trl.GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=rows // micro_batch,
            num_generations=group_size,
            max_completion_length=new_tokens,
            generation_kwargs={"min_new_tokens": new_tokens},
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
        trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            ),
            reward_funcs=lambda completions, **_: [float(n % 2) for n in range(len(completions))],  # all groups train
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": list(prompts) * steps}),
            processing_class=AutoTokenizer.from_pretrained(model, trust_remote_code=False),
            callbacks=[Clock()],
        )
        trainer.train()
    return [end - start for start, end in pairwise(ends)]


@torch.no_grad()
def sample(policy: Policy, prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> int:
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
        num_return_sequences=group_size,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=pad,
        use_cache=True,  # a policy's config says no, since the tree keeps its own
    )
    return int(out.shape[0] * (out.shape[1] - longest))


@torch.no_grad()
def sample_continuously(policy: Policy, prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> int:
    """Sample by transformers' continuous batching; returns the number of new tokens."""
    from transformers import GenerationConfig

    made: Any = GenerationConfig
    settings = made(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new_tokens, eos_token_id=-1, pad_token_id=0
    )
    rows = [list(row) for row in prompts for _ in range(group_size)]
    found = policy.model.generate_batch(rows, generation_config=settings, progress_bar=False)
    return sum(len(one.generated_tokens) for one in found.values())


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
