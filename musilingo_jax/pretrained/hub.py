"""Models by their name on the Hugging Face hub: `m-a-p/MERT-v1-330M`, `…@revision`.

Downloads are kept where `huggingface_hub` keeps them, and the environment variables
that it documents (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) apply.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

import jax

from musilingo_jax.pretrained import foreign_models, mu_llama_release
from musilingo_jax.pretrained.pytorch_files import BIN, BIN_INDEX
from musilingo_jax.pretrained.safetensors_file import Tensor, read_header
from musilingo_jax.pretrained.tensor_files import CONFIG, INDEX, WEIGHTS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import print_note, printable

if TYPE_CHECKING:
    from fsspec.spec import AbstractBufferedFile

_NAME = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")

SMALL = (
    *("*.json", "*.jinja", "tokenizer.model", "*/tokenizer.model"),
    *foreign_models.LORA_WEIGHTS,
)
"""Patterns of the files that describe a model; and a LoRA, which is small."""

# Holds the header of most safetensors, so that one request reads all of it.
_FIRST_BLOCK = 100_000


class _Name(NamedTuple):
    """A name in its two pieces; without a revision, the newest is meant."""

    repo: str
    revision: str | None


def is_name(source: str) -> bool:
    """Whether `source` can be the name of a model on the hub."""
    return _NAME.fullmatch(source) is not None


def download(source: str, *, weights: bool) -> Path:
    """The folder of a model in the hub's cache, downloaded if it is not there yet.

    A note says how large weights are before they are downloaded.

    Args:
      source: `owner/name`, or `owner/name@revision` (a branch, tag or commit).
      weights: whether to download the weights, too: in each folder, those that
        `open_tensors` would choose. Otherwise, only the files that describe the model
        are downloaded, its configuration and tokenizer. Code is never downloaded.

    Raises:
      UserError: there is no such model or revision, or this user may not read it, or it
        is neither in the cache nor reachable.
    """
    folder = _snapshot(source, SMALL)
    if not weights:
        return folder
    try:
        names = files(source)
    except UserError:
        # Without a connection, weights that were downloaded before will do.
        if _weights(_files_in(folder), folder):
            return folder
        raise
    chosen = _weights(names, folder)
    if missing := [name for name in chosen if not (folder / name).is_file()]:
        _tell_size(source, tuple(missing))
    return _snapshot(source, (*SMALL, *chosen))


def cached(source: str) -> Path | None:
    """The folder of a model in the hub's cache, if it has weights there."""
    from huggingface_hub import errors, snapshot_download

    name = _parse(source)
    try:
        folder = Path(
            snapshot_download(
                name.repo,
                revision=name.revision,
                allow_patterns=list(SMALL),  # Other files may be missing.
                local_files_only=True,
            )
        )
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if _weights(_files_in(folder), folder) else None


@functools.lru_cache(maxsize=16)
def is_available(source: str) -> bool:
    """Whether the hub can be reached and lets this user read the model."""
    try:
        files(source)
    except UserError:
        return False
    return True


@functools.lru_cache(maxsize=16)
def files(source: str) -> tuple[str, ...]:
    """The names of all files of a model.

    Raises:
      UserError: as `download`.
    """
    from huggingface_hub import HfApi, constants

    name = _parse(source)
    with _hub_errors(source):
        # One request that is not repeated: without a connection it fails at once.
        found = HfApi().model_info(
            name.repo, revision=name.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    return tuple(file.rfilename for file in found.siblings or ())


def has_file(source: str, name: str) -> bool:
    """Whether a model on the hub has a file of this name.

    Raises:
      UserError: as `download`.
    """
    return name in files(source)


@functools.lru_cache(maxsize=16)  # Each part of a release asks for all of it.
def _tell_size(source: str, names: tuple[str, ...]) -> None:
    """Says on stderr how large the files are that are about to be downloaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    parsed = _parse(source)
    with _hub_errors(source):
        listed = HfApi().list_repo_tree(
            parsed.repo, revision=parsed.revision, recursive=True
        )
        sizes = {file.path: file.size for file in listed if isinstance(file, RepoFile)}
    if jax.process_index() == 0:
        total = sum(sizes.get(name, 0) for name in names)
        print_note(
            f"note: {source} is downloaded into the hub's cache, which HF_HOME moves: "
            f"{total / 1e9:.2f} GB in {', '.join(names)}"
        )


def look_into(source: str, folder: str) -> Mapping[str, Tensor]:
    """The tensors in a folder of a model on the hub, without downloading its files.

    Only headers are read, and later those parts of tensors that are indexed.

    Args:
      source: the model.
      folder: a folder in it; "" for the top.

    Raises:
      UserError: as `download`; or the model has no safetensors, or broken ones.
    """
    found = _weights(files(source), download(source, weights=False))
    parent = PurePosixPath(folder)
    inside = [name for name in found if PurePosixPath(name).parent == parent]
    if not inside:
        below = download(source, weights=False) / folder
        there = [name for name in files(source) if PurePosixPath(name).parent == parent]
        names = [PurePosixPath(name).name for name in there]
        known = foreign_models.recognised(below, names)
        raise UserError(f"{source}: {known or 'has no weights in ' + (folder or 'it')}")
    if not inside[0].endswith(".safetensors"):
        raise UserError(
            f"{source}: has no safetensors, and the tensors in PyTorch's files cannot "
            "be listed without downloading them; `python -m musilingo_jax.convert "
            "safetensors` downloads them"
        )
    tensors: dict[str, Tensor] = {}
    for name in inside:
        tensors |= _header(source, name)
    return tensors


@functools.lru_cache(maxsize=64)
def _header(source: str, name: str) -> Mapping[str, Tensor]:
    with _hub_errors(source):
        try:
            return read_header(_HubFile(source, name))
        except (ValueError, ArithmeticError, RecursionError) as error:
            reason = printable(str(error))
            raise UserError(f"{source}: {name} is broken ({reason})") from error


class _HubFile:
    """A file on the hub, of which byte ranges are read: a `SafetensorsFile`."""

    def __init__(self, source: str, name: str):
        """Asks for the size; OSError if the file does not exist."""
        from huggingface_hub import HfFileSystem

        self.path = f"{source}/{name}"
        self._source = source
        repo, revision = _parse(source)
        file = HfFileSystem().open(
            f"{repo}/{name}",
            "rb",
            revision=revision,
            # Keeps the first block, where the header is, and nothing else.
            block_size=_FIRST_BLOCK,
            cache_type="first",
        )
        # The declared type of `open` is that of text files.
        self._file = cast("AbstractBufferedFile", file)
        self.size: int = self._file.size
        self._lock = threading.Lock()

    def read(self, into: memoryview, start: int) -> int:
        """As in `SafetensorsFile`, but a failure is a UserError."""
        with self._lock, _hub_errors(self._source):
            self._file.seek(start)
            content = self._file.read(len(into))
            if len(content) > len(into):
                raise OSError("the server ignores the range that was asked for")
        into[: len(content)] = content
        return len(content)


def _weights(names: Collection[str], folder: Path) -> list[str]:
    """The files that `open_tensors` would read in each folder, or else a LoRA's.

    Args:
      names: all files of the model.
      folder: the local folder with its indices.
    """
    found = []
    for parent in sorted({PurePosixPath(name).parent for name in names}):
        for single, index in ((WEIGHTS, INDEX), (BIN, BIN_INDEX)):
            if str(parent / single) in names:
                found.append(str(parent / single))
                break
            if (folder / parent / index).is_file():
                where = read_json(folder / parent / index).get("weight_map")
                shards = where.values() if isinstance(where, dict) else ()
                listed = {str(parent / str(name)) for name in shards}
                found += sorted(listed.intersection(names))
                break
        else:
            loras = (str(parent / name) for name in foreign_models.LORA_WEIGHTS)
            found += [name for name in loras if name in names][:1]
    # A whole model; what is in folders beside it is in it, too.
    whole = mu_llama_release.CHECKPOINT
    return [whole] if whole in names and CONFIG not in names else found


def _files_in(folder: Path) -> tuple[str, ...]:
    """The names of all files below a folder, as `files` gives them."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return tuple(path.relative_to(folder).as_posix() for path in found)


# Kept, because each call asks the hub whether there is a newer revision.
@functools.lru_cache(maxsize=16)
def _snapshot(source: str, patterns: tuple[str, ...]) -> Path:
    # Imported here because it takes a second, and most models are folders.
    from huggingface_hub import snapshot_download

    name = _parse(source)
    with _hub_errors(source):
        return Path(
            snapshot_download(
                name.repo, revision=name.revision, allow_patterns=list(patterns)
            )
        )


def _parse(source: str) -> _Name:
    match = _NAME.fullmatch(source)
    assert match is not None, f"{source!r} is not a name on the hub"
    return _Name(match["repo"], match["revision"])


@contextlib.contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """Turns the errors of the hub, and of the connection to it, into a UserError."""
    from huggingface_hub import errors

    name = _parse(source)
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(
            f"{source}: its owners ask for consent first; give it on the model's page "
            "and log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{source}: this model has no revision {name.revision!r}; leave out what "
            "follows the @ for the newest"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{source}: there is no such folder, and no such model on the hub (or it is"
            " private: log in with `hf auth login`)"
        ) from error
    # Without a connection, huggingface_hub raises its own errors or its transport's.
    # `HTTPError` is the transport's base class: httpx or httpx2, depending on version.
    except (
        OSError,
        ValueError,
        errors.HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    ) as error:
        raise UserError(
            f"{source}: there is no such folder; as a model on the hub, it is not in "
            f"the cache and cannot be downloaded now ({type(error).__name__}); correct "
            f"the name, or download it with a connection: `hf download {name.repo}`"
        ) from error
