"""Models by their name on the Hugging Face hub: `m-a-p/MERT-v1-330M`, `…@revision`.

What was downloaded once is kept where `huggingface_hub` keeps it, and the environment
variables that it documents (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) hold.
"""

import re
from pathlib import Path

from musilingo_jax.errors import UserError

_NAME = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")

SMALL = ("*.json", "tokenizer.model")
SAFETENSORS = ("*.safetensors",)
PICKLES = ("pytorch_model*.bin",)


def is_name(source: str) -> bool:
    """Whether `source` may be the name of a model on the hub."""
    return _NAME.fullmatch(source) is not None


def download(source: str, *, weights: bool) -> Path:
    """The folder of a model in the hub's cache, downloaded if it is not there yet.

    Args:
      source: `owner/name`, with `@revision` (branch, tag or commit) or without.
      weights: safetensors too, or PyTorch's files where there are none; else only what
        describes the model: its configuration and tokenizer. No code ever.

    Raises:
      UserError: there is no such model or revision, it is not open to this user, or it
        is neither reachable nor in the cache.
    """
    folder = _snapshot(source, SMALL + SAFETENSORS if weights else SMALL)
    if weights and not any(folder.glob("*.safetensors")):
        folder = _snapshot(source, SMALL + PICKLES)
    return folder


def _snapshot(source: str, patterns: tuple[str, ...]) -> Path:
    # A second to import, and most models are folders.
    from huggingface_hub import errors, snapshot_download

    match = _NAME.fullmatch(source)
    try:
        folder = snapshot_download(
            match["repo"], revision=match["revision"], allow_patterns=list(patterns)
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{source}: its owners ask for consent first; give it on the model's page "
            "and log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{source}: this model has no revision {match['revision']!r}; leave out "
            "what follows the @ for the newest"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{source}: there is no such folder, and no such model on the hub (or it is"
            " private: log in with `hf auth login`)"
        ) from error
    # Without a connection its own errors and those of its transport come alike.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{source}: there is no such folder; taken as a model on the hub, it is not"
            f" in the cache and cannot be downloaded ({type(error).__name__}: {reason})"
        ) from error
    return Path(folder)
