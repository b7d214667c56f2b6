"""Causal models of many kinds run all of RMT and are loaded as saved; others, and damaged folders, are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import DTYPES, choose_device, choose_dtype, load_policy
from rmt_mini.engine.tree import DocumentTree
from rmt_mini.errors import UserError
from rmt_mini.runs.run import run
from tests.fakes import SHAPES, SIZES, byte_tokenizer, make_tiny_policy, tiny_model
from tests.stages.tiny import small


def saved(folder: Path, model: Any) -> str:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A saved model of every shape."""
    return {shape: saved(tmp_path_factory.mktemp(shape), tiny_model(shape)) for shape in SHAPES}


@pytest.mark.parametrize(("shape", "dtype"), zip(SHAPES, DTYPES, strict=True))
def test_a_saved_model_loads_as_it_was(folders: dict[str, str], shape: str, dtype: str) -> None:
    policy, before = load_policy(folders[shape], device="cpu", dtype=dtype), make_tiny_policy(shape)
    assert isinstance(policy.tree, DocumentTree)
    assert (policy.device, policy.dtype) == (torch.device("cpu"), DTYPES[dtype])
    assert not policy.model.training
    assert policy.parameters == before.parameters
    assert policy.head.weight.shape == (259, 32)
    now = dict(policy.model.named_parameters())
    assert all(torch.equal(now[name], one.to(policy.dtype)) for name, one in before.model.named_parameters())


def refused(name: str, words: str, **options: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_policy(name, **{"device": "cpu", "dtype": "float32", **options})
    assert "\n" not in str(caught.value)  # one line


# --- names and damaged folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smollm3", "./nowhere", "/no/such/folder", "a/b/c", "~nobody/x"])
def test_unknown_names_are_refused_without_asking_a_network(name: str) -> None:
    refused(name, "neither a folder nor a known name")


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(where: str, **_: Any) -> None:
        raise OSError(f"We couldn't connect to the hub\nto load {where}")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", offline)
    refused("owner/name", r"'owner/name' cannot be opened \(We couldn't connect to the hub to load owner/name\)")


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def without(pattern: str) -> Callable[[Path], None]:
    return lambda folder: [file.unlink() for file in folder.glob(pattern)] and None


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def spoil(value: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return edit


def enlarge(folder: Path) -> None:
    byte_tokenizer(["many", "more", "words"]).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (without("config.json"), "has no config.json"),
        (without("*.safetensors"), "holds no weights"),
        (without("token*"), "has no tokenizer"),
        (truncate, "cannot be opened"),
        (write("config.json", b"{"), "cannot be opened"),
        (write("tokenizer.json", b"{"), "cannot be opened"),
        (edit_config(model_type="t5"), "cannot be opened"),
        (edit_config(intermediate_size=64), "cannot be opened"),
        # a config that asks for more layers than the file holds would be filled up at random
        (edit_config(num_hidden_layers=3, layer_types=["full_attention"] * 3), "misses 12 of its weights"),
        (edit_config(quantization_config={"quant_method": "a new one"}), "is quantised and cannot be trained"),
        (spoil(float("nan")), "model.layers.1.mlp.up_proj.weight that are not finite"),
        (spoil(float("inf")), "model.layers.1.mlp.up_proj.weight that are not finite"),
        (enlarge, "knows 259 tokens, but its tokenizer numbers them up to "),
    ],
)
def test_a_damaged_folder_is_refused(
    folders: dict[str, str], tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders["qwen2"], folder)
    damage(folder)
    refused(str(folder), f"{folder}.*{complaint}")


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_not_taken_for_a_model(alone: bool, tmp_path: Path) -> None:
    """transformers would load both, train both, and save the adapter alone."""
    base = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "base", tiny_model()))
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    folder = saved(tmp_path / "adapter" if alone else tmp_path / "base", adapted)
    refused(folder, r"holds an adapter \(adapter_config.json\).*merge_and_unload")


# --- architectures -----------------------------------------------------------------------------------------------

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
    "gpt_oss: a sink, and windows": ("gpt_oss", MOE | {"head_dim": 8}),
    "gemma3: with pictures": (
        "gemma3",
        {"text_config": GROUPED | {"head_dim": 8}, "vision_config": PICTURES, "mm_tokens_per_image": 4},
    ),
}
REFUSED = {
    "bert: an encoder": ("bert", SIZES | {"initializer_range": 0.2}, "sees the token that it is to predict"),
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
def test_a_model_that_is_taken_runs_to_the_end(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmt_mini.runs.run.write_report", lambda path: "")  # reads numbers alone, of whatever model
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
    kept = load_policy(str(result.folder / "checkpoint"), "cpu", "float32").model.state_dict()
    trained = result.policy.model.state_dict()
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[name], trained[name]) for name in kept)
    changed = {name for name, one in begun.model.named_parameters() if not torch.equal(one, kept[name])}
    head = {name for name, _ in begun.model.named_parameters() if "lm_head" in name}
    assert changed
    assert head <= changed, "the output embedding and its bias are trained"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_later_code_could_not_use_is_refused(kind: str, tmp_path: Path) -> None:
    """At transformers' own small initial weights, where a cap of 30 does not show in the logits themselves."""
    name, config, words = REFUSED[kind]
    make(tmp_path, name, config)
    refused(str(tmp_path), words)


# --- device and dtype --------------------------------------------------------------------------------------------


def test_unknown_devices_and_dtypes(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = folders["llama"]
    refused(name, "dtype 'float16' is unknown; use one of auto, float32, bfloat16, float64", dtype="float16")
    refused(name, "device 'abacus' is not one that PyTorch knows", device="abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(name, "device 'cuda:1' is not available", device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused(name, "device 'cuda:2' is not there: PyTorch sees 2 GPUs, numbered from 0", device="cuda:2")


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"), [(None, True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_choice_of_device(asked: str | None, gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(gpu))
    assert choose_device(asked) == torch.device(chosen)


@pytest.mark.parametrize("asked", [None, "auto"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("fast", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_choice_of_dtype(
    asked: str | None, device: str, fast: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    assert choose_dtype(torch.device(device), asked) == chosen
