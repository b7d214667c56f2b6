from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.engine.model import DTYPES, choose_device, choose_dtype, load_policy
from rmt_mini.engine.tree import DocumentTree
from rmt_mini.errors import UserError
from tests.fakes import SHAPES, make_tiny_policy


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of every shape."""
    saved = {}
    for shape in SHAPES:
        policy = make_tiny_policy(shape)
        saved[shape] = tmp_path_factory.mktemp(shape)
        policy.model.save_pretrained(saved[shape])
        policy.tokenizer.save_pretrained(saved[shape])
    return saved


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_model_loads_as_it_was(folders: dict[str, Path], shape: str, dtype: str) -> None:
    policy = load_policy(str(folders[shape]), device="cpu", dtype=dtype)
    before = make_tiny_policy(shape)
    assert isinstance(policy.tree, DocumentTree)
    assert (policy.device, policy.dtype) == (torch.device("cpu"), DTYPES[dtype])
    assert not policy.model.training
    assert policy.parameters == sum(parameter.numel() for parameter in before.model.parameters())
    assert policy.head.weight.shape == (259, 32)
    now = dict(policy.model.named_parameters())
    assert all(torch.equal(now[name], one.to(policy.dtype)) for name, one in before.model.named_parameters())


# --- What goes wrong ---------------------------------------------------------------------------------------------


def refused(name: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_policy(name, **{"device": "cpu", "dtype": "float32", **options})
    message = str(caught.value)
    assert "\n" not in message  # one line
    return message


@pytest.mark.parametrize("name", ["smollm3", "./nowhere", "/no/such/folder", "a/b/c", "~nobody/x"])
def test_unknown_names_are_refused_without_asking_a_network(name: str) -> None:
    assert "neither a folder nor a known name" in refused(name)


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def offline(where: str, **_: Any) -> None:
        raise OSError(f"We couldn't connect to the hub\nto load {where}")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", offline)
    message = refused("owner/name")
    assert "'owner/name' cannot be opened (We couldn't connect to the hub to load owner/name)" in message


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def without(pattern: str) -> Callable[[Path], None]:
    return lambda folder: [file.unlink() for file in folder.glob(pattern)] and None


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (without("config.json"), "has no config.json"),
        (without("*.safetensors"), "holds no weights"),
        (without("token*"), "has no tokenizer"),
        (truncate, "cannot be opened"),
        (write("model.safetensors", b""), "cannot be opened"),
        (write("config.json", b"{"), "cannot be opened"),
        (write("tokenizer.json", b"{"), "cannot be opened"),
        (edit_config(model_type="zebra"), "cannot be opened"),
        (edit_config(intermediate_size=64), "cannot be opened"),
        # a config that asks for more layers than the file holds would be filled up at random
        (edit_config(num_hidden_layers=3, layer_types=["full_attention"] * 3), "misses 12 of its weights"),
    ],
)
def test_a_damaged_folder_is_refused(
    folders: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders["qwen2"], folder)
    damage(folder)
    message = refused(str(folder))
    assert complaint in message
    assert str(folder) in message


def test_unknown_devices_and_dtypes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(folders["llama"])
    assert "dtype 'float16' is unknown; use one of auto, float32, bfloat16, float64" in refused(name, dtype="float16")
    assert "device 'abacus' is not one that PyTorch knows" in refused(name, device="abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        assert f"device {device!r} is not available" in refused(name, device=device)


# --- What is chosen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"), [(None, True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_choice_of_device(asked: str | None, gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
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
