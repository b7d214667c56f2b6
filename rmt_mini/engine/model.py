"""Load a policy: a causal language model, its tokenizer, and the tree that runs it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.memory import keep_freed_memory
from rmt_mini.engine.plain import PlainTree, choose_tree, gap
from rmt_mini.engine.tree import DocumentTree
from rmt_mini.engine.weights import BUNDLED, WORLD_MODELS, bundled_model
from rmt_mini.errors import UserError, logger, refusing

BASE = "{base}"  # in a name: the number of a model, where a comparison begins with several of a kind
OPENED = "check the folder or the hub id; a model's own code is never executed"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass
class Policy:
    """A model ready for the tree, in evaluation mode: no dropout, what is trained is what was sampled."""

    name: str
    model: Any
    tokenizer: Any
    tree: DocumentTree | PlainTree
    device: torch.device
    dtype: torch.dtype
    proxy: "Policy | None" = None  # a smaller model that measures entropies, where ``entropy_model`` names one

    @property
    def head(self) -> nn.Module:
        """The output embedding, d -> V."""
        head: nn.Module = self.model.get_output_embeddings()
        return head

    @property
    def parameters(self) -> int:
        """Number of parameters, each counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_policy(name: str, device: str | None = None, dtype: str | None = None) -> Policy:
    """Load a causal language model: ``micro``, ``smollm2-135m``, a folder of ``save_pretrained``, or a hub id.

    Weights are read from safetensors only, and hub code is never executed. Device and dtype are chosen by the hardware
    unless given. A UserError says why a model cannot be used.
    """
    from transformers import AutoModelForCausalLM

    target, where = choose_device(device), locate_model(name)
    wanted = choose_dtype(target, dtype)
    if target.type == "cpu":
        keep_freed_memory()
    tokenizer = load_tokenizer(where)
    with refusing(f"model {name!r} cannot be opened", OPENED):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=wanted, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random weights
        raise UserError(f"model {name!r} misses {len(missing)} of its weights ({missing[0]}); is the copy complete?")
    if unused := sorted(report["unexpected_keys"]):  # of the images of a vision model, say
        logger.warning("Model %r: %d weights (%s) are not used, and not in checkpoints", name, len(unused), unused[0])
    _require_sound(name, model, tokenizer)
    model.to(target).eval()
    _require_causal(name, model)
    return make_policy(name, model, tokenizer)


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model alone; name and errors are those of ``load_policy``."""
    from transformers import AutoTokenizer

    where = locate_model(name)
    with refusing(f"model {name!r} cannot be opened", OPENED):
        # None, the default, would ask on the terminal whether a model's own code may run
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False)


def make_policy(name: str, model: Any, tokenizer: Any) -> Policy:
    """Wrap a model that is already in memory."""
    model.eval()
    model.config.use_cache = False
    weight = model.get_input_embeddings().weight
    if weight.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans half a second for every new shape, and here most are new
    return Policy(name, model, tokenizer, choose_tree(model), weight.device, weight.dtype)


def choose_device(device: str | None = None) -> torch.device:
    """Return the device asked for, or CUDA where there is one, or the CPU."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device!r} is not available: PyTorch sees no GPU here; use device 'cpu'")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is not one that PyTorch knows; use 'cpu', 'cuda' or 'auto'") from error
    if found.type == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device {device!r} is not there: PyTorch sees {count} GPUs, numbered from 0")
    return found


def choose_dtype(device: torch.device, dtype: str | None = None) -> torch.dtype:
    """Return the dtype asked for, or bfloat16 where the hardware multiplies it, or float32."""
    if dtype is not None and dtype != "auto":
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is unknown; use one of auto, {', '.join(DTYPES)}")
        return DTYPES[dtype]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        fast = device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if fast else torch.float32


def locate_model(name: str) -> str:
    """Turn a name into what ``from_pretrained`` opens, with an error that helps where nothing is there."""
    bundled = bundled_model(name)
    if bundled is not None:
        return str(bundled)
    path = Path(os.path.expanduser(name))
    if not path.is_dir():
        if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or os.sep not in name:
            known = "'smollm2-135m', 'micro', 'abacus', a folder or a hub id"
            raise UserError(f"model {name!r} is neither a folder nor a known name; give {known}")
        return name
    fault, inside = "", path / "checkpoint"
    if (path / "adapter_config.json").is_file():  # it would be left out of what is trained and saved
        fault = "holds an adapter (adapter_config.json); save the merged model (merge_and_unload of peft) by itself"
    elif not (path / "config.json").is_file():
        remedy = repr(str(inside)) if (inside / "config.json").is_file() else "a folder that save_pretrained wrote"
        fault = f"has no config.json; give {remedy}"
    elif not any(path.glob("*.safetensors")):
        fault = "holds no weights (*.safetensors); is the copy complete?"
    if fault:
        raise UserError(f"model folder {name!r} {fault}")
    return str(path)


def absolute_name(name: str) -> str:
    """Return a model's name as it means the same everywhere: a folder by its whole path, others as they are."""
    path = os.path.expanduser(name)
    found = os.path.isdir(path.replace(BASE, "0"))
    return os.path.abspath(path) if name not in (BUNDLED, *WORLD_MODELS) and found else name


def _require_sound(name: str, model: Any, tokenizer: Any) -> None:
    """Refuse quantised or damaged weights, and a tokenizer that is missing or not the model's."""
    if getattr(model.config, "quantization_config", None) is not None:
        raise UserError(f"model {name!r} is quantised and cannot be trained; give its weights in float32 or bfloat16")
    vocabulary, rows = tokenizer.get_vocab(), len(model.get_input_embeddings().weight)
    if not set(vocabulary) - set(tokenizer.all_special_tokens):
        raise UserError(f"model {name!r} has no tokenizer; save one there with tokenizer.save_pretrained")
    # a special token may lie beyond the rows, as a late [PAD] often does: only a chat template can use it
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    last = max(n for token, n in vocabulary.items() if token not in special or token in str(tokenizer.chat_template))
    if last >= rows:
        found = f"knows {rows} tokens, but its tokenizer numbers them up to {last}"
        raise UserError(f"model {name!r} {found}; save there the tokenizer that it was trained with")
    for key, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise UserError(f"model {name!r} holds numbers in {key} that are not finite; the copy is damaged")


@torch.no_grad()
def _require_causal(name: str, model: Any) -> None:
    """Refuse a model whose hidden states see what they predict (BERT's), or do not determine its logits alone."""
    advice = "give a causal language model, such as SmolLM2 or Qwen3"
    head = model.get_output_embeddings()
    ids = torch.arange(8, device=model.get_input_embeddings().weight.device)[None]
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)

    def enlarged(logits: Tensor) -> Tensor:
        return logits * (100 / logits.abs().max())

    with refusing(f"model {name!r} does not run as a causal language model", advice):
        model.config.get_text_config()  # none, or several, where a model is not of text
        seen, unseen = (model.get_decoder()(input_ids=one, use_cache=False).last_hidden_state for one in (ids, other))
        ours, theirs = head(seen), model(input_ids=ids, use_cache=False).logits
        if not bool(theirs.isfinite().all()):
            raise ValueError("its logits are not finite")
        hook = head.register_forward_hook(lambda _, __, logits: enlarged(logits))
        capped = model(input_ids=ids, use_cache=False).logits  # a cap shows on large logits only
        hook.remove()
        logprobs = target_logprobs(head, seen[0, :-1], ids[0, 1:])
        expected = theirs[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        looks_ahead = gap(unseen[:, :-1], seen[:, :-1])
        differs = max(gap(ours, theirs), gap(enlarged(ours), capped), gap(logprobs, expected))
    most = 1e-2 if ours.dtype in (torch.bfloat16, torch.float16) else 1e-4
    if looks_ahead > most:
        raise UserError(f"model {name!r} sees the token that it is to predict, as encoders like BERT do; {advice}")
    if differs > most:
        found = "does more to its logits than its output embedding (scales or caps them, say)"
        raise UserError(f"model {name!r} {found}, which is not supported; {advice}")
