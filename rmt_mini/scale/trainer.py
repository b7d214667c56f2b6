"""TRL's GRPOTrainer with RMT put in: positions drawn as a step begins, and the next-token loss beside TRL's own.

    GRPOTrainer                          here
    _generate_and_score_completions      first draw C and its budgets with the policy as it is; afterwards take the
                                         advantages as ``method`` does (TRL divides by the deviation over G - 1)
    rollout_func (TRL's own hook)        thought, then cue, then answer; env_mask keeps what the environment wrote out
    _compute_loss                        L = TRL's policy loss + lambda * L_NTP

Sampling, log-probabilities, policy loss, clipping, KL, sharding, accumulation and saving are TRL's, and its settings
stand in ``settings``. The step's generator is seeded by seed, step and process, so that a resumed run samples what the
unbroken one would have sampled (with transformers' generate; vLLM keeps generators of its own).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import AnswerFormat, answer_format
from rmt_mini.engine.text import Text, generator_for, require_room, to_texts
from rmt_mini.errors import NonFiniteError
from rmt_mini.method.entropy import token_entropy
from rmt_mini.method.grpo import group_advantages, groups_with_signal
from rmt_mini.method.objective import ntp_loss, rmt_loss
from rmt_mini.records import Document
from rmt_mini.scale.objective import document_logprobs, documents_batch, share_of_documents
from rmt_mini.scale.positions import Positions, Question, StepPlan, places
from rmt_mini.scale.rewards import reward_functions
from rmt_mini.scale.schedule import Schedule, load_state
from rmt_mini.scale.settings import ScaleSettings, grpo_settings
from rmt_mini.scale.thoughts import Generate, generate_by_trl, think_and_answer

trl: Any = import_module("trl")  # its hooks are not annotated
logger = logging.getLogger(__name__)
ENTROPY_ROWS = 128  # tokens whose entropy is taken at once: in float32 a row is as wide as the vocabulary


class RMTGRPOTrainer(trl.GRPOTrainer):  # type: ignore[misc]
    """Mid-train a model by RMT on as many processes as accelerate started.

    Args:
        config: all settings of the method.
        settings: how the work is spread.
        model: a causal LM, or a PEFT model.
        tokenizer: its tokenizer.
        documents: training documents.
        out: run folder.
        peft_config: wraps the model in adapters, and trains them alone.
        generate: samples continuations; a control may pass another.

    Attributes:
        positions: draws each step's positions; its ``step`` is moved by the callback.
        plan: of the step that is running.

    Raises:
        UserError: for settings that TRL does not carry, or that do not fit the model or each other.
    """

    def __init__(
        self,
        config: RMTConfig,
        settings: ScaleSettings,
        model: Any,
        tokenizer: Any,
        documents: Sequence[Document],
        out: str,
        peft_config: Any = None,
        generate: Generate = generate_by_trl,
    ) -> None:
        self.config, self.generate = config, generate
        self.form: AnswerFormat = answer_format(
            config.answer_format, tokenizer, model.num_parameters(), config.prefix_match
        )
        require_room(config.model, model.config, self.form, config)
        texts = to_texts(documents, self.form, config, "training")
        self.positions = Positions(config, texts)
        self.plan: StepPlan
        self.questions: list[Question] = []
        rewards, weights = reward_functions(self.form, config)
        arguments = grpo_settings(config, settings, self.form, out) | {"reward_weights": weights}
        super().__init__(
            model=model,
            reward_funcs=rewards,
            args=trl.GRPOConfig(**arguments),
            train_dataset=Dataset.from_dict(places(config)),
            processing_class=tokenizer,
            peft_config=peft_config,
            rollout_func=lambda prompts, trainer: trainer._roll_out(),
        )
        self.remove_callback(PrinterCallback)  # metrics.jsonl and the log have it
        self.add_callback(Schedule(self))

    def _roll_out(self) -> dict[str, Any]:
        """Sample this process's rollouts, as TRL's hook for them wants them returned."""
        rows = think_and_answer(self, self.generate, self.form, self.config, self.questions)
        return {
            "prompt_ids": [row.prompt for row in rows],
            "completion_ids": [row.completion for row in rows],
            "env_mask": [row.chosen for row in rows],
            "logprobs": None if rows[0].logprobs is None else [row.logprobs for row in rows],
            "thought_length": [row.thought_length for row in rows],
            "closed": [row.closed for row in rows],
            "answer": [row.answer for row in rows],
        }

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        self.plan = plan = self.positions.draw(self._entropies)
        self.questions = [plan.questions[row["place"]] for row in inputs]
        mine = generator_for(self.config.seed, "rollout", plan.step, self.accelerator.process_index)
        torch.manual_seed(mine.initial_seed())
        rows = [
            {"prompt": self.form.tokenizer.decode(q.text.ids[: q.position.index]), "question": q}
            for q in self.questions
        ]
        output: dict[str, Any] = super()._generate_and_score_completions(rows)
        output["advantages"] = self._advantages(output["advantages"])
        self._tell(rows, output, time.perf_counter() - began)
        return output

    def _advantages(self, centred: Tensor) -> Tensor:
        """Divide rewards that TRL centred in their groups as ``method`` does; a group may lie across processes."""
        config, size, index = self.config, len(centred), self.accelerator.process_index
        everyone = self.accelerator.gather(centred).double()
        advantages = group_advantages(everyone, config.group_size, scale=config.scale_advantages)
        return advantages[index * size : (index + 1) * size].to(centred.dtype)

    def _entropies(self, texts: Sequence[Text]) -> list[Tensor]:
        """Measure each token of each text. Every process reads its share, and all learn all.

        Texts are read one at a time, so that the result is the same for any number of processes.
        """
        device, processes = self.accelerator.device, self.accelerator.num_processes
        found = torch.zeros(len(texts), max(len(text.ids) for text in texts), device=device)
        for first in range(0, len(texts), processes):
            number = first + self.accelerator.process_index
            text = texts[min(number, len(texts) - 1)]  # who has none reads one in vain, since all must read
            with torch.no_grad(), self.accelerator.autocast():
                logits = self.model(input_ids=torch.tensor([text.ids], device=device), use_cache=False).logits[0, :-1]
            if number < len(texts):
                parts = [token_entropy(part, self.config.entropy_top_k or None) for part in logits.split(ENTROPY_ROWS)]
                found[number, 1 : len(text.ids)] = torch.cat(parts)
        shared = self.accelerator.reduce(found, reduction="sum").cpu()
        return [row[: len(text.ids)] for row, text in zip(shared, texts, strict=True)]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        rl = super()._compute_loss(model, inputs)
        ntp = self._ntp_loss(model, like=rl)
        loss = rmt_loss(rl, ntp, self.config.ntp_weight if self.config.use_ntp else 0.0)
        # each process holds its share times their number, so that the mean over processes is the sum of shares
        shares = self.accelerator.reduce(torch.stack([rl.detach(), ntp.detach()]).float(), reduction="mean").tolist()
        for name, value in zip(("rl_loss", "ntp_loss"), shares, strict=True):
            self._metrics["train"][name].append(value * self.args.gradient_accumulation_steps)  # log() takes means
            if not math.isfinite(value):  # reduced, so that all processes stop, and the first one says why
                raise NonFiniteError(
                    f"step {self.positions.step}: {name} is not finite; the last checkpoint is whole; lower "
                    f"learning_rate ({self.config.learning_rate})"
                )
        return loss

    def _ntp_loss(self, model: Any, like: Tensor) -> Tensor:
        """This process's share, in this micro-step, of the next-token loss."""
        plan, accelerator = self.plan, self.accelerator
        steps = self.args.steps_per_generation
        share = share_of_documents(
            len(plan.texts), self._step % steps, steps, accelerator.process_index, accelerator.num_processes
        )
        if share is None:
            return like.new_zeros(())
        batch = documents_batch(plan, share, self.processing_class.pad_token_id, accelerator.device)
        with torch.set_grad_enabled(self.config.use_ntp), accelerator.autocast():
            logprobs, mask = document_logprobs(model, batch, self.config.temperature)
        return ntp_loss(logprobs.float(), mask, count=plan.ntp_tokens / accelerator.num_processes)

    def _tell(self, rows: Sequence[dict[str, Any]], output: dict[str, Any], seconds: float) -> None:
        """Log what TRL does not."""
        own = torch.tensor([[row["thought_length"], row["closed"]] for row in rows], device=self.accelerator.device)
        lengths, closed = self.accelerator.gather(own).float().mean(0).tolist()
        everyone = len(rows) * self.accelerator.num_processes
        matches = torch.tensor(list(self._logs["rewards"]["match"])[-everyone:])
        told = {
            "thought_length": lengths,
            "closed_share": closed,
            "signal_groups": groups_with_signal(matches, self.config.group_size).float().mean().item(),
            "rl_tokens": float(output["num_items_in_batch"]),
            "rollout_seconds": seconds,
        }
        for name, value in told.items():
            self._metrics["train"][name].append(value)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.positions.load_state_dict(load_state(checkpoint))
