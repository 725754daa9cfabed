"""The folders in which models are released, shipped and saved.

Each is a `config.json` and safetensors, of our own or of the `transformers` library:
what one writes the other reads. Where a folder is expected, the name of an embedded
model will do.
"""

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from musilingo_jax.errors import UserError
from musilingo_jax.models import adapter as adapters
from musilingo_jax.models import llama as llamas
from musilingo_jax.models import mert as merts
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.tensors import CONFIG, INDEX, WEIGHTS, load, read_json, save

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREPROCESSOR = "preprocessor_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def resolve(source: str | Path) -> Path:
    """The folder that `source` means: a path, or the name of an embedded model.

    Raises:
      UserError: there is neither.
    """
    assets = Path(str(resources.files("musilingo_jax"))) / "assets"
    for folder in (Path(source), assets / source):
        if folder.is_dir():
            return folder
    found = (path.parent.relative_to(assets) for path in assets.rglob(WEIGHTS))
    embedded = ", ".join(sorted(folder.as_posix() for folder in found))
    raise UserError(
        f"{source}: there is no such folder; give the folder of a model"
        + (f", or the name of an embedded one ({embedded})" if embedded else "")
    )


def read_config(source: str | Path) -> dict[str, Any]:
    """The `config.json` of a model.

    Raises:
      UserError: the folder or the file is missing, or the file is no JSON object.
    """
    folder = resolve(source)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: not a model folder, for it has no {CONFIG}")
    return read_json(folder / CONFIG)


def load_encoder(source: str | Path, *, dtype: DTypeLike, mesh: Mesh | None) -> Mert:
    """A MERT; arguments and errors as in `tensors.load`."""
    folder = resolve(source)
    said = read_config(folder)
    if (folder / PREPROCESSOR).is_file():
        # Released files say here what is done to the waveform; ours in the config.
        preprocessor = read_json(folder / PREPROCESSOR)
        renamed = {"do_normalize": "do_normalize", "sampling_rate": "sample_rate"}
        said = {
            ours: preprocessor[theirs]
            for theirs, ours in renamed.items()
            if theirs in preprocessor
        } | said
    config = MertConfig.from_dict(said)
    abstract = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    return load(abstract, merts.NAMES, merts.IGNORED, folder, dtype=dtype, mesh=mesh)


def load_language_model(
    source: str | Path, *, dtype: DTypeLike, mesh: Mesh | None
) -> Llama:
    """A LLaMA; arguments and errors as in `tensors.load`."""
    folder = resolve(source)
    config = LlamaConfig.from_dict(read_config(folder))
    abstract = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    # Some files whose head is the embedding carry a copy of it all the same.
    ignored = (*llamas.IGNORED, *([r"lm_head\.weight"] if config.tied else []))
    return load(abstract, llamas.NAMES, ignored, folder, dtype=dtype, mesh=mesh)


def load_adapter(source: str | Path, *, mesh: Mesh | None) -> Adapter:
    """An adapter, in float32 because it learns; errors as in `tensors.load`."""
    folder = resolve(source)
    config = read_config(folder)
    widths = [config.get(key) for key in ("encoder_width", "language_model_width")]
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(
            f"{folder / CONFIG}: an adapter's file needs encoder_width and "
            "language_model_width, both positive whole numbers"
        )
    abstract = jax.eval_shape(lambda: Adapter(*widths, rngs=nnx.Rngs(0)))
    return load(abstract, adapters.NAMES, (), folder, dtype=np.float32, mesh=mesh)


def save_encoder(mert: Mert, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_encoder` and transformers' `HubertModel` read."""
    # Without masking in training, HubertModel misses no vector for masked frames.
    unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    config = mert.config.to_dict() | unmasked
    save(mert, merts.NAMES, folder, dtype=dtype, config=config, metadata={})


def save_language_model(llama: Llama, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_language_model` and transformers' `LlamaForCausalLM` read."""
    config = llama.config.to_dict()
    save(llama, llamas.NAMES, folder, dtype=dtype, config=config, metadata={})


def save_adapter(
    adapter: Adapter, folder: Path, *, dtype: DTypeLike, window_frames: int
) -> None:
    """Writes what `load_adapter` reads.

    Args:
      adapter: the two arrays.
      folder: as in `tensors.save`.
      dtype: as stored.
      window_frames: encoder frames per vector that the adapter was trained on, told to
        whoever makes features for it.
    """
    width_in, width_out = adapter.projection.kernel.shape
    config = {
        "encoder_width": width_in,
        "language_model_width": width_out,
        "window_frames": window_frames,
    }
    save(adapter, adapters.NAMES, folder, dtype=dtype, config=config, metadata={})


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer beside a language model. Nothing is downloaded, no code is run.

    Raises:
      UserError: there is none, it cannot be read, or it has tokens that the language
        model of the same folder has no embedding for.
    """
    folder = resolve(source)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(
            f"{folder}: has no tokenizer; copy the {' or '.join(TOKENIZERS)} that "
            "belongs to the language model there"
        )
    # Seconds to import, and who loads weights need not read text.
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # Whatever its many parsers raise.
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{folder}: its tokenizer cannot be read: {reason}") from error
    rows = LlamaConfig.from_dict(read_config(folder)).vocab
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise UserError(
            f"{folder}: the tokenizer has {tokens} tokens but the language model "
            f"embeds only {rows}; copy the tokenizer that belongs to it there"
        )
    return tokenizer


def digest(folder: str | Path) -> str:
    """A fingerprint of a model: sha256 over the names and contents of its files.

    Counted are the weights, the tokenizer and all that says how to compute with them; a
    copy has the same digest wherever and whenever it was made.
    """
    folder = resolve(folder)
    names = {path.name for path in folder.glob("*.safetensors")}
    total = hashlib.sha256()
    said = {CONFIG, INDEX, PREPROCESSOR, *TOKENIZERS, "tokenizer_config.json"}
    for name in sorted(names | said):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{name} {content}\n".encode())
    return total.hexdigest()
