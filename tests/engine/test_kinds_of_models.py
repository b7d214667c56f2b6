"""Causal models of many kinds: each runs all of RMT and is saved and loaded again, or is refused on loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.runs.run import resume, run
from tests.engine.test_foreign_models import saved
from tests.fakes import SIZES, tiny_model
from tests.stages.tiny import small

GROUPED = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 512}
MOE = GROUPED | {"num_experts_per_tok": 2, "num_local_experts": 4}
PICTURES = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip

RUNS = {
    "phi: a bias on the output embedding": ("phi", GROUPED),
    "apertus: a buffer without dimensions": ("apertus", GROUPED | {"hidden_act": "xielu"}),
    "bloom: distances in place of positions": ("bloom", SIZES | {"n_layer": 2, "n_head": 4}),
    "mamba: a state, and no attention": ("mamba", SIZES | {"state_size": 4, "num_hidden_layers": 1}),
    "jamba: both, and experts": (
        "jamba",
        MOE | {"num_experts": 2, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "mixtral: experts": ("mixtral", MOE),
    "gpt_oss: a sink, and windows": ("gpt_oss", MOE | {"head_dim": 8}),
    "gemma3: with pictures": (
        "gemma3",
        {"text_config": GROUPED | {"head_dim": 8}, "vision_config": PICTURES, "mm_tokens_per_image": 4},
    ),
}
REFUSED = {
    "gemma2: a cap": ("gemma2", GROUPED | {"head_dim": 8}, "does more to its logits"),
    "cohere: a factor": ("cohere", GROUPED, "does more to its logits"),
    "granite: a divisor": ("granite", GROUPED | {"logits_scaling": 8.0}, "does more to its logits"),
    "llama4: another interface": (
        "llama4_text",
        MOE | {"head_dim": 8, "intermediate_size_mlp": 48},
        "does not run as a causal language model",
    ),
}


def make(folder: Path, kind: str, config: dict[str, Any]) -> Any:
    """Save a tiny model of the kind; all its parameters are drawn, biases too."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**config))
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        torch.nn.init.normal_(head.bias)
    saved(folder, model)
    return model.eval()


@pytest.mark.parametrize("kind", RUNS)
def test_a_model_that_is_taken_runs_to_the_end(kind: str, tmp_path: Path) -> None:
    few: dict[str, Any] = {"steps": 1, "warmup_steps": 1, "warmup_positions": 2, "evaluation_positions": 3}
    few |= {"group_size": 2, "positions_per_document": 1, "documents_per_step": 1, "preflight_positions": 3}
    (tmp_path / "tales.txt").write_text("\n\n\n".join(f"Tale {n}. The cat sat on mat {n}." for n in range(12)))
    places = {"model": str(tmp_path / "kind"), "corpus": str(tmp_path / "tales.txt"), "out": str(tmp_path / "run")}
    config = small(budget_start=2, document_tokens=16, **few, **places)
    model = make(tmp_path / "kind", *RUNS[kind])
    result = run(config, progress=False)
    ids = torch.arange(12)[None]
    begun = load_policy(str(tmp_path / "kind"), "cpu", "float32")
    hidden = begun.tree.read(ids.tolist())
    with torch.no_grad():
        ours = target_logprobs(begun.head, hidden.hidden[0][:-1], ids[0, 1:])
        theirs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)[range(11), range(1, 12)]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    saved = resume(result.folder, progress=False).policy.model.state_dict()  # of a run that is done: its checkpoint
    trained = result.policy.model.state_dict()
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)
    changed = {name for name, one in begun.model.named_parameters() if not torch.equal(one, saved[name])}
    head = {name for name, _ in begun.model.named_parameters() if "lm_head" in name}
    assert changed
    assert head <= changed, "the output embedding and its bias are trained"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_later_code_could_not_use_is_refused(kind: str, tmp_path: Path) -> None:
    """At transformers' own small initial weights, where a cap of 30 does not show in the logits themselves."""
    name, config, words = REFUSED[kind]
    make(tmp_path, name, config)
    with pytest.raises(UserError, match=words):
        load_policy(str(tmp_path), "cpu", "float32")


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_not_taken_for_a_model(alone: bool, tmp_path: Path) -> None:
    """transformers would load both, train both, and save the adapter alone."""
    base = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "base", tiny_model()))
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    folder = tmp_path / "adapter" if alone else tmp_path / "base"
    saved(folder, adapted)
    with pytest.raises(UserError, match=r"holds an adapter \(adapter_config.json\).*merge_and_unload"):
        load_policy(str(folder), "cpu", "float32")


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, tiny_model())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "a new one"}}))
    with pytest.raises(UserError, match="is quantised and cannot be trained"):
        load_policy(name, "cpu", "float32")
