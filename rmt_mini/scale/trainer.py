"""TRL's GRPOTrainer with RMT: positions drawn as a step begins, and the next-token loss beside TRL's own.

    GRPOTrainer                          here
    _generate_and_score_completions      first draw C and its budgets with the policy as it is; afterwards scale the
                                         advantages as ``method`` does (TRL divides by the deviation over G - 1)
    reward_funcs, rollout_func           our reward; thought, cue and answer, env_mask without the environment's
    _compute_loss                        L = TRL's policy loss + lambda * L_NTP
    callback                             step, budget and curriculum; metrics.jsonl; our state beside TRL's checkpoints

Each loss is a sum over its tokens divided by their number in the whole step, over all processes and micro-batches.
Processes average gradients, so each multiplies its share by their number. Seed, step and process seed the step's
generator, so that a resumed run samples as the uninterrupted one (transformers only; vLLM has generators of its own).
rmt_state.json is written last, whole or not at all: a checkpoint with it is complete, and others are passed over.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from rmt_mini import method
from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.prompt import answer_format
from rmt_mini.engine.text import generator_for, longest_branch, require_room, to_texts
from rmt_mini.errors import NonFiniteError, logger
from rmt_mini.files import File, as_lines, write_whole
from rmt_mini.records import Document, Text
from rmt_mini.scale import sampling
from rmt_mini.scale.launch import ScaleSettings, grpo_settings

LINE = (
    "step {number}/{steps}: budget {budget}, match {match_reward:.3f}, thoughts {thought_length:.1f}, next-token loss "
    "{ntp_loss:.3f}; {rollout_seconds:.1f} + {update_seconds:.1f} s, {left:.1f} min left"
)


class State(File, name="rmt_state.json"):
    """rmt_state.json: what the steps to come depend on, and metrics.jsonl so far."""

    positions: dict[str, Any]
    lines: list[dict[str, Any]]


class StepCallback(TrainerCallback):
    """Move the step of an RMTGRPOTrainer, save its state, write its metrics."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.lines: list[dict[str, Any]] = []  # of metrics.jsonl
        self.logs: dict[str, Any] = {}  # of the step's updates so far

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from our state in the checkpoint that TRL has loaded, if any."""
        if state.global_step:
            saved = State.read(_checkpoint(args, state))
            self.trainer.positions.load_state_dict(saved.positions)
            self.lines = saved.lines

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set t, which budget and curriculum follow; it is the same for all updates of a step."""
        self.trainer.positions.step = state.global_step // self.trainer.num_iterations

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write metrics.jsonl once the step is complete, with the fields that every run has."""
        logs, trainer = given["logs"], self.trainer
        if "loss" not in logs:  # the summary at the end
            return
        # one update reports what was sampled, each its own losses; the last counts
        seconds = self.logs.get("seconds", 0.0) + logs["step_time"]
        self.logs |= {name: value for name, value in logs.items() if value is not None} | {"seconds": seconds}
        if state.global_step % trainer.num_iterations:
            return
        line, self.logs = step_line(trainer, self.logs), {}
        self.lines.append(line)
        if state.is_world_process_zero:
            left = (trainer.config.steps - line["step"] - 1) * seconds / 60
            logger.info(LINE.format(**line, steps=trainer.config.steps, number=line["step"] + 1, left=left))
            write_whole(Path(args.output_dir) / "metrics.jsonl", as_lines(self.lines))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write our state into the checkpoint that TRL has just written."""
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            State(positions=self.trainer.positions.state_dict(), lines=self.lines).write(_checkpoint(args, state))


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def step_line(trainer: Any, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's line of metrics.jsonl from what TRL logged of its updates."""
    plan, config = trainer.plan, trainer.config
    tiers = [question.position.tier for question in plan.questions]
    rewards = ("match_reward", "length_reward", "reward", "thought_length", "closed_share", "signal_groups")
    return {
        "step": plan.step,
        "budget": plan.budget,
        "tier_probabilities": method.probabilities_of(config, plan.step),
        "tier_counts": [tiers.count(tier) for tier in range(3)],
        **{name: logs[name] for name in (*rewards, "rl_loss", "ntp_loss", "grad_norm")},
        "rl_tokens": int(logs["rl_tokens"]),
        "ntp_tokens": plan.ntp_tokens,
        "rollout_seconds": logs["rollout_seconds"],
        "update_seconds": max(0.0, logs["seconds"] - logs["rollout_seconds"]),
        "peak_memory_mb": peak_memory_mb(trainer.accelerator.device),
    }


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run folder; None where there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{State.NAME}")]
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


trl: Any = import_module("trl")  # its hooks are not annotated
ENTROPY_ROWS = 128  # tokens whose entropy is taken at once: in float32 a row is as wide as the vocabulary


class RMTGRPOTrainer(trl.GRPOTrainer):  # type: ignore[misc]
    """Mid-train ``model`` by RMT on as many processes as accelerate started, or adapters by ``peft_config``.

    ``out`` is the run folder; ``generate`` samples continuations, and a control may pass another.
    """

    plan: sampling.StepPlan  # of the step that is running
    questions: list[sampling.AskedPosition]  # of this process's rollouts
    matches: list[float]  # their match rewards

    def __init__(
        self,
        config: RMTConfig,
        settings: ScaleSettings,
        model: Any,
        tokenizer: Any,
        documents: Sequence[Document],
        out: str,
        peft_config: Any = None,
        generate: sampling.Generate = sampling.generate_by_trl,
    ) -> None:
        self.config, self.generate = config, generate
        self.form = answer_format(config.answer_format, tokenizer, model.num_parameters(), config.prefix_match)
        require_room(config.model, model.config, self.form, config)
        self.positions = sampling.Positions(config, to_texts(documents, self.form, config, "training"))
        places = [*range(config.positions_per_document * config.documents_per_step)] * config.steps
        arguments = grpo_settings(config, settings, longest_branch(self.form, config), out)
        super().__init__(
            model=model,
            reward_funcs=self._reward,
            args=trl.GRPOConfig(**arguments),
            train_dataset=Dataset.from_dict({"prompt": [""] * len(places), "place": places}),
            processing_class=tokenizer,
            peft_config=peft_config,
            rollout_func=lambda prompts, trainer: trainer._roll_out(),
        )
        self.remove_callback(PrinterCallback)  # metrics.jsonl and the log have it
        self.add_callback(StepCallback(self))

    def _roll_out(self) -> dict[str, Any]:
        """Sample this process's rollouts, and return them column by column, as TRL's hook requires."""
        rows = sampling.think_and_answer(self, self.generate, self.form, self.config, self.questions)
        columns: dict[str, Any] = dict(zip(sampling.Sampled._fields, map(list, zip(*rows, strict=True)), strict=True))
        return columns if rows[0].logprobs is not None else columns | {"logprobs": None}

    def _reward(
        self, question: Sequence[sampling.AskedPosition], answer: Sequence[Sequence[int]], log_metric: Any, **row: Any
    ) -> list[float]:
        """Reward rollouts, as TRL asks for it; ``log_metric`` takes means over processes."""
        config, sizes = self.config, row["thought_length"]
        matches = [
            self.form.judge(said, q.text.ids, q.position.index) for said, q in zip(answer, question, strict=True)
        ]
        earned = map(method.length_reward, sizes, [one.budget for one in question])
        lengths = [float(one) * config.use_budget for one in earned]
        measured = {"match_reward": matches, "length_reward": lengths, "thought_length": sizes}
        for name, values in (measured | {"closed_share": row["closed"]}).items():
            log_metric(name, fmean(values))
        self.matches, weight = matches, config.length_weight * config.use_budget
        rewards = zip(matches, lengths, strict=True)
        return [method.total_reward(match, length, weight, config.length_if_correct) for match, length in rewards]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        self.plan = self.positions.draw(self._entropies)
        self.questions = [self.plan.questions[row["place"]] for row in inputs]
        index, size = self.accelerator.process_index, self.config.group_size
        torch.manual_seed(generator_for(self.config.seed, "rollout", self.plan.step, index).initial_seed())
        decode = self.form.tokenizer.decode
        rows = [{"prompt": decode(q.text.ids[: q.position.index]), "question": q} for q in self.questions]
        output: dict[str, Any] = super()._generate_and_score_completions(rows)

        centred = self.accelerator.gather(output["advantages"]).double()  # a group may be split between processes
        advantages = method.group_advantages(centred, size, scale=self.config.scale_advantages)
        output["advantages"] = advantages[index * len(rows) :][: len(rows)].to(output["advantages"].dtype)

        matches = self.accelerator.gather(torch.tensor(self.matches, device=self.accelerator.device)).cpu()
        self._record(
            signal_groups=method.groups_with_signal(matches, size).float().mean().item(),
            rl_tokens=float(output["num_items_in_batch"]),
            rollout_seconds=time.perf_counter() - began,
        )
        return output

    def _record(self, **values: float) -> None:
        """Add to what TRL's ``log`` averages."""
        for name, value in values.items():
            self._metrics["train"][name].append(value)

    def _entropies(self, texts: Sequence[Text]) -> list[Tensor]:
        """Measure each token of each text, one text at a time: the same result for any number of processes."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        found = torch.zeros(len(texts), max(len(text.ids) for text in texts), device=device)
        for first in range(0, len(texts), processes):
            number = first + self.accelerator.process_index
            text = texts[min(number, len(texts) - 1)]  # with sharded weights all must read
            with torch.no_grad(), self.accelerator.autocast():
                logits = self.model(input_ids=torch.tensor([text.ids], device=device), use_cache=False).logits[0, :-1]
            if number < len(texts):
                entropy = partial(method.token_entropy, top_k=self.config.entropy_top_k or None)
                found[number, 1 : len(text.ids)] = torch.cat([*map(entropy, logits.split(ENTROPY_ROWS))])
        shared = self.accelerator.reduce(found, reduction="sum").cpu()
        return [row[: len(text.ids)] for row, text in zip(shared, texts, strict=True)]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        rl = super()._compute_loss(model, inputs)
        ntp = self._ntp_loss(model, like=rl)
        # reduced, so that all processes stop together, and the first one reports it
        shares = self.accelerator.reduce(torch.stack([rl.detach(), ntp.detach()]).float(), reduction="mean").tolist()
        for name, value in zip(("rl_loss", "ntp_loss"), shares, strict=True):
            self._record(**{name: value * self.args.gradient_accumulation_steps})
            if not math.isfinite(value):
                remedy = f"the last checkpoint is whole; lower learning_rate ({self.config.learning_rate})"
                raise NonFiniteError(f"step {self.positions.step}: {name} is not finite; {remedy}")
        return method.rmt_loss(rl, ntp, self.config.ntp_weight if self.config.use_ntp else 0.0)

    def _ntp_loss(self, model: Any, like: Tensor) -> Tensor:
        """Return this process's share, in this micro-step, of the next-token loss, at temperature 1."""
        plan, accelerator, steps = self.plan, self.accelerator, self.args.steps_per_generation
        texts, processes, loss = plan.texts, accelerator.num_processes, like.new_zeros(())
        for first in range(self._step % steps * processes, len(texts), steps * processes):
            number = first + accelerator.process_index
            place = min(number, len(texts) - 1)  # with sharded weights all must read
            ids = torch.tensor([texts[place].ids], device=accelerator.device)
            mask = plan.masks[place].to(accelerator.device)[None, 1:] & (number < len(texts))
            with torch.set_grad_enabled(self.config.use_ntp), accelerator.autocast():
                if self.config.temperature == 1.0:
                    logprobs = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
                else:  # TRL's fused head has the temperature of sampling, so the logits are made in full
                    logits = model(input_ids=ids).logits[:, :-1].float()
                    logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            loss = loss + method.ntp_loss(logprobs.float(), mask, count=plan.ntp_tokens / processes)
        return loss
