"""One process of a run on TRL; accelerate starts as many as there are.

    accelerate launch --config_file CONFIG -m rmt_mini.scale.train paper --changes '{"steps": 20}'

``rmt-mini launch PRESET`` writes that line. The same line given again goes on where the run was stopped or killed. The
folder has settings.json, metrics.jsonl, TRL's checkpoint-N/ with our state, and at the end checkpoint/.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmt_mini.config import RMTConfig, preset
from rmt_mini.errors import UserError, logger, refusing
from rmt_mini.files import File, require_free
from rmt_mini.scale.launch import ScaleSettings, in_bfloat16, require_installed, require_supported
from rmt_mini.worlds.corpus import corpus_for


class Started(File, name="settings.json"):
    """settings.json: what a folder's run was started with."""

    config: RMTConfig  # without its folder
    scale: dict[str, Any]


def lora(rank: int) -> Any:
    """Return PEFT's configuration of LoRA on every linear layer but the output embedding; None for rank 0."""
    if rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def open_model(config: RMTConfig, settings: ScaleSettings) -> tuple[Any, Any]:
    """Load model and tokenizer; weights in float32, as TRL and DeepSpeed want them, unless only adapters train."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    light = settings.lora_rank > 0 and not settings.cpu and config.dtype != "float32"
    weights = {"dtype": "bfloat16" if light else "float32", "use_safetensors": True}
    with refusing(f"model {config.model!r} cannot be opened", "check the folder or the hub id"):
        tokenizer = AutoTokenizer.from_pretrained(config.model, trust_remote_code=False)
        return AutoModelForCausalLM.from_pretrained(config.model, trust_remote_code=False, **weights), tokenizer


def train(config: RMTConfig, settings: ScaleSettings, **options: Any) -> Path:
    """Train, from the newest complete checkpoint on, and return the folder; ``options`` go to RMTGRPOTrainer."""
    out = Path(config.out or f"runs/{config.preset}-trl-seed{config.seed}")
    started = Started(config=config.replace(out=""), scale=settings.to_dict())
    require_same(out, started.config)
    require_supported(config, settings.cpu)
    require_installed(settings.engine)
    documents, _ = corpus_for(config).split(config.evaluation_fraction)
    from rmt_mini.scale.trainer import RMTGRPOTrainer, latest_checkpoint

    # accelerate's own file says bf16 for every GPU, and goes before what the trainer's arguments say
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if in_bfloat16(config, settings) else "no"
    opened = open_model(config, settings)
    trainer = RMTGRPOTrainer(config, settings, *opened, documents, str(out), lora(settings.lora_rank), **options)
    if trainer.accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        started.write(out)
    begun = latest_checkpoint(out)
    trainer.accelerator.wait_for_everyone()
    if begun is not None:
        logger.info("going on from %s", begun)
    trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
    made = out / ".checkpoint.new"  # a run that was killed while it saves is not a finished one
    trainer.save_model(str(made))
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        made.rename(out / "checkpoint")
    return out


def require_same(out: Path, config: RMTConfig) -> None:
    """Raise a UserError for a folder with anything but an unfinished run of this ``config``; its scale may change."""
    if (out / "checkpoint").exists():
        raise UserError(f"output folder {str(out)!r} has a finished run; choose another --out")
    before = Started.find(out)
    if before is None:
        require_free(out)
        return
    for name, value in before.config:
        if getattr(config, name) != value:
            remedy = "give the same settings to go on, or another --out"
            raise UserError(f"output folder {str(out)!r} has a run with another {name} ({value!r}); {remedy}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train PRESET as one of accelerate's processes."""
    parser = argparse.ArgumentParser(prog="python -m rmt_mini.scale.train", description=main.__doc__)
    parser.add_argument("preset", metavar="PRESET")
    parser.add_argument("--changes", type=json.loads, default={}, help="fields that differ from the preset's, as JSON")
    parser.add_argument("--scale", type=json.loads, default={}, help="fields of ScaleSettings, as JSON")
    given = parser.parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "transformers", "trl"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked as experimental
    try:
        out = train(preset(given.preset, **given.changes), ScaleSettings(**given.scale))
    except UserError as error:
        if first:
            sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    if first:
        sys.stdout.write(f"Checkpoint   {out / 'checkpoint'}\n")


if __name__ == "__main__":
    main()
