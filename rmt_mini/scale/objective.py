"""The next-token loss on many processes: who reads which document, and over which count.

Disjoint masks: reinforcement trains on what the model sampled at the positions of C, next-token prediction on the
documents' own tokens outside C. Each loss is a sum over its tokens divided by their number in the whole step, over all
processes and micro-batches. The number of the second is known everywhere beforehand, from the step's plan; no process
has to ask. Processes average gradients, so each multiplies its share by their number.

A process reads its documents along with its micro-batches of rollouts. With DeepSpeed ZeRO-3 or FSDP a forward pass
gathers weights from everyone, so all must make equally many; a process that has no document left reads one with an
empty mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.scale.positions import StepPlan

IGNORED = -100  # label of a token without loss, to transformers and TRL


def share_of_documents(count: int, micro_step: int, micro_steps: int, process: int, processes: int) -> range | None:
    """Say which documents a process reads in one of its micro-steps.

    Args:
        count: documents of the step.
        micro_step: which, from 0.
        micro_steps: forward-backward passes of a process in the step.
        process: which, from 0.
        processes: how many.

    Returns:
        Their numbers; empty where others still read and this one has none; None where no process reads any.

    Example:
        >>> [[share_of_documents(5, step, 2, process, 2) for process in (0, 1)] for step in (0, 1)]
        [[range(0, 2), range(2, 4)], [range(4, 5), range(5, 5)]]
        >>> share_of_documents(2, 1, 2, 0, 2) is None
        True
    """
    each = math.ceil(count / (micro_steps * processes))
    begin = micro_step * processes * each
    if begin >= count:
        return None
    own = min(count, begin + process * each)
    return range(own, min(count, own + each))


def documents_batch(plan: StepPlan, share: Sequence[int], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Lay documents out as a batch, padded on the right.

    Args:
        plan: of the step.
        share: numbers of documents; where there are none, the first stands there with an empty mask.
        pad: token id.
        device: of the batch.

    Returns:
        input_ids, attention_mask and labels, each (documents, longest); a label is the token itself where the
        next-token loss trains on it, else IGNORED.
    """
    numbers = list(share) or [0]
    longest = max(len(plan.texts[n].ids) for n in numbers)
    shape = (len(numbers), longest)
    ids, attended, labels = (torch.full(shape, value) for value in (pad, 0, IGNORED))
    for row, n in enumerate(numbers):
        own = torch.tensor(plan.texts[n].ids)
        ids[row, : len(own)] = own
        attended[row, : len(own)] = 1
        if len(share):
            labels[row, : len(own)] = own.where(plan.masks[n], IGNORED)
    return {"input_ids": ids.to(device), "attention_mask": attended.to(device), "labels": labels.to(device)}


def document_logprobs(model: Any, batch: dict[str, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of documents' own tokens at temperature 1, and which of them count.

    Args:
        model: with TRL's fused output embedding, which forgets logits between the passes but knows the temperature of
            sampling alone; at another than 1 the logits are made whole: documents x longest x V of memory.
        batch: from ``documents_batch``.
        temperature: of sampling.

    Returns:
        (documents, longest - 1) nats, and bool of the same shape.
    """
    labels = batch["labels"][:, 1:]
    mask = labels != IGNORED
    if temperature == 1.0:
        return model(**batch, fused_lm_head=True).log_probs, mask
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0], mask
