"""One process of a run on TRL; accelerate starts as many as there are.

    accelerate launch --config_file CONFIG -m rmt_mini.scale.train gpu
    accelerate launch --config_file CONFIG -m rmt_mini.scale.train paper --changes '{"steps": 20}'

``rmt-mini launch PRESET`` writes that line. The same line given again goes on where the run was stopped or killed.

    OUT/settings.json    both configurations as resolved
    OUT/metrics.jsonl    a line a step, as in every run folder
    OUT/checkpoint-N/    TRL's, with our state
    OUT/checkpoint/      the model, or its adapters, and the tokenizer, at the end
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from rmt_mini.config import RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.files import require_free, write_whole
from rmt_mini.records import Document
from rmt_mini.scale.settings import ScaleSettings, require_carried, require_installed
from rmt_mini.worlds.corpus import load_corpus

logger = logging.getLogger(__name__)


def lora(rank: int) -> Any:
    """Return PEFT's configuration of LoRA on every linear layer but the output embedding; None for rank 0."""
    if rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def open_model(config: RMTConfig, settings: ScaleSettings) -> tuple[Any, Any]:
    """Load model and tokenizer; weights in float32 unless adapters alone are trained, as TRL and DeepSpeed want them.

    Raises:
        UserError: if they cannot be opened.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    light = settings.lora_rank > 0 and not settings.cpu and config.dtype != "float32"
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            config.model,
            dtype=torch.bfloat16 if light else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {config.model!r} cannot be opened ({reason}); check the folder or the hub id"
        ) from error
    return model, tokenizer


def make_trainer(config: RMTConfig, settings: ScaleSettings, out: Path, **options: Any) -> Any:
    """Load what a run needs and put its trainer together.

    Args:
        config: of the method; its corpus is split by document as every run splits it.
        settings: of the work.
        out: run folder.
        options: further arguments of RMTGRPOTrainer.

    Raises:
        UserError: for anything that a user can set right.
    """
    require_carried(config)
    require_installed(settings.engine)
    documents, _ = load_corpus(config.corpus, column=config.column).split(config.evaluation_fraction)
    from rmt_mini.scale.trainer import RMTGRPOTrainer

    model, tokenizer = open_model(config, settings)
    kept: list[Document] = list(documents)
    return RMTGRPOTrainer(
        config, settings, model, tokenizer, kept, str(out), peft_config=lora(settings.lora_rank), **options
    )


def train(config: RMTConfig, settings: ScaleSettings, **options: Any) -> Path:
    """Train, from the newest complete checkpoint on where there is one.

    Args:
        config: of the method.
        settings: of the work.
        options: further arguments of RMTGRPOTrainer.

    Returns:
        The run folder.

    Raises:
        UserError: for anything that a user can set right.
    """
    from rmt_mini.scale.schedule import latest_checkpoint

    out = Path(config.out or f"runs/{config.preset}-trl-seed{config.seed}")
    both = {"config": config.to_dict() | {"out": ""}, "scale": settings.to_dict()}
    require_same(out, both)
    trainer = make_trainer(config, settings, out, **options)
    if trainer.accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "settings.json", json.dumps(both, indent=1) + "\n")
    begun = latest_checkpoint(out)
    trainer.accelerator.wait_for_everyone()
    if begun is not None:
        logger.info("going on from %s", begun)
    trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
    trainer.save_model(str(out / "checkpoint"))
    return out


def require_same(out: Path, both: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but an unfinished run of these settings; how work is spread may change.

    Raises:
        UserError: naming the folder.
    """
    if (out / "checkpoint").exists():
        raise UserError(f"output folder {str(out)!r} holds a finished run; choose another --out")
    path = out / "settings.json"
    if not path.exists():
        require_free(out)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{str(path)!r} is damaged; restore it from a copy, or choose another --out") from error
    now = json.loads(json.dumps(both["config"]))
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        raise UserError(
            f"output folder {str(out)!r} holds a run with another {other[0]} ({before.get(other[0])!r}); give the same "
            f"settings to go on, or another --out"
        )


def _values(text: str, flag: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{flag} is {text!r:.80}; give a JSON object of fields and their values") from error
    if not isinstance(values, dict):
        raise UserError(f"{flag} is {text!r:.80}; give a JSON object of fields and their values")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@click.command()
@click.argument("preset_name", metavar="PRESET")
@click.option("--changes", default="{}", help="fields of the configuration that differ from the preset's, as JSON")
@click.option("--scale", default="{}", help="fields of ScaleSettings, as JSON")
def main(preset_name: str, changes: str, scale: str) -> None:
    """Train PRESET as one of accelerate's processes."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "transformers", "trl"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked so; tests hold it to what we need
    try:
        config = preset(preset_name, **_values(changes, "--changes"))
        out = train(config, ScaleSettings.from_dict(_values(scale, "--scale")))
    except UserError as error:
        if first:
            click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if first:
        click.echo(f"Checkpoint   {out / 'checkpoint'}")


if __name__ == "__main__":
    main()
