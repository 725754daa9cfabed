"""Models by their name on the Hugging Face hub: `m-a-p/MERT-v1-330M`, `…@revision`.

What was downloaded once is kept where `huggingface_hub` keeps it, and the environment
variables that it documents (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) hold.
"""

import contextlib
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from musilingo_jax.pretrained.pytorch_files import BIN, BIN_INDEX
from musilingo_jax.pretrained.safetensors_file import Tensor, read_header
from musilingo_jax.pretrained.tensor_files import INDEX, WEIGHTS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

_NAME = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")

SMALL = ("*.json", "tokenizer.model")
# As much as the headers of most files take.
_BEGINNING = 100_000


def is_name(source: str) -> bool:
    """Whether `source` may be the name of a model on the hub."""
    return _NAME.fullmatch(source) is not None


def download(source: str, *, weights: bool) -> Path:
    """The folder of a model in the hub's cache, downloaded if it is not there yet.

    Args:
      source: `owner/name`, with `@revision` (branch, tag or commit) or without.
      weights: those that `open_tensors` would take in each folder, too; else only what
        describes the model: its configuration and tokenizer. No code ever.

    Raises:
      UserError: there is no such model or revision, it is not open to this user, or it
        is neither reachable nor in the cache.
    """
    folder = _snapshot(source, SMALL)
    if not weights:
        return folder
    try:
        names = files(source)
    except UserError:
        if _weights(_there(folder), folder):  # Downloaded when there was a connection.
            return folder
        raise
    return _snapshot(source, (*SMALL, *_weights(names, folder)))


def cached(source: str) -> Path | None:
    """The folder of a model in the hub's cache, if it has weights there."""
    from huggingface_hub import errors, snapshot_download

    match = _NAME.fullmatch(source)
    try:
        folder = Path(
            snapshot_download(
                match["repo"],
                revision=match["revision"],
                allow_patterns=list(SMALL),  # Files that nothing needs may be lacking.
                local_files_only=True,
            )
        )
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if _weights(_there(folder), folder) else None


def look_into(source: str, folder: str) -> Mapping[str, Tensor]:
    """The tensors in a folder of a model on the hub, without downloading it.

    Headers are read, and then the parts of tensors that somebody asks for.

    Args:
      source: the model.
      folder: within it; "" for itself.

    Raises:
      UserError: as in `download`; or there are no safetensors, or broken ones.
    """
    found = _weights(files(source), download(source, weights=False))
    inside = [
        name for name in found if PurePosixPath(name).parent == PurePosixPath(folder)
    ]
    if not inside or not inside[0].endswith(".safetensors"):
        raise UserError(
            f"{source}: has no safetensors, and files of PyTorch cannot be looked into "
            "from afar; `python -m musilingo_jax.convert safetensors` downloads them"
        )
    tensors = {}
    for name in inside:
        tensors |= _header(source, name)
    return tensors


@functools.lru_cache(maxsize=64)
def _header(source: str, name: str) -> Mapping[str, Tensor]:
    match = _NAME.fullmatch(source)
    with _told(source):
        try:
            return read_header(_RemoteFile(match["repo"], name, match["revision"]))
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise UserError(f"{source}: {name} is broken ({error})") from error


@functools.lru_cache(maxsize=16)
def files(source: str) -> tuple[str, ...]:
    """The names of all files of a model.

    Raises:
      UserError: as in `download`.
    """
    from huggingface_hub import HfApi

    match = _NAME.fullmatch(source)
    with _told(source):
        listed = HfApi().list_repo_files(match["repo"], revision=match["revision"])
    return tuple(listed)


def _there(folder: Path) -> tuple[str, ...]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return tuple(path.relative_to(folder).as_posix() for path in files)


def _weights(names: Collection[str], folder: Path) -> list[str]:
    """Of a model's files those that `open_tensors` takes, in each of its folders.

    Args:
      names: of all its files.
      folder: where its indices are.
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
    return found


class _RemoteFile:
    """A file on the hub, of which parts are asked for; see `safetensors_format.File`.

    A header is read in two parts and is small, so its first part fetches more.
    """

    def __init__(self, repo: str, name: str, revision: str | None):
        from huggingface_hub import hf_hub_url

        self.path = f"{repo}/{name}"
        self._url = hf_hub_url(repo, name, revision=revision)
        self._beginning, self.size = self._get(0, _BEGINNING)

    def read(self, into: memoryview, start: int) -> int:
        stop = start + len(into)
        if stop <= len(self._beginning):
            content = self._beginning[start:stop]
        else:
            content, _ = self._get(start, stop)
        into[: len(content)] = content
        return len(content)

    def _get(self, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes from `start` to `stop`, and how many there are in all."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        response = get_session().get(
            self._url,
            headers={**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"},
            follow_redirects=True,
        )
        hf_raise_for_status(response)
        total = response.headers.get("Content-Range", "/").split("/")[1]
        if not total.isdigit():
            raise OSError("the server does not send parts of files")
        return response.content, int(total)


def _snapshot(source: str, patterns: tuple[str, ...]) -> Path:
    # A second to import, and most models are folders.
    from huggingface_hub import snapshot_download

    match = _NAME.fullmatch(source)
    with _told(source):
        return Path(
            snapshot_download(
                match["repo"], revision=match["revision"], allow_patterns=list(patterns)
            )
        )


@contextlib.contextmanager
def _told(source: str) -> Iterator[None]:
    """Says in a sentence what the hub, or the way to it, would not do."""
    from huggingface_hub import errors

    revision = _NAME.fullmatch(source)["revision"]
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
            f"{source}: this model has no revision {revision!r}; leave out "
            "what follows the @ for the newest"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{source}: there is no such folder, and no such model on the hub (or it is"
            " private: log in with `hf auth login`)"
        ) from error
    # Without a connection its own errors and those of its transport come alike.
    except (OSError, ValueError, errors.HTTPError) as error:
        repo = _NAME.fullmatch(source)["repo"]
        raise UserError(
            f"{source}: there is no such folder; taken as a model on the hub, it is not"
            f" in the cache and cannot be downloaded now ({type(error).__name__}); "
            f"correct the name, or download it with a connection: `hf download {repo}`"
        ) from error
