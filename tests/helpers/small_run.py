"""Random models, a few seconds of noise and a config, to train in tests in seconds."""

import atexit
import functools
import importlib.util
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from flax import nnx
from ml_collections import ConfigDict
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import tokenizer, weights

ROOT = Path(__file__).parents[2]
TEXT = (
    "What is it? It is a calm piano piece, slow and quiet. How fast is it? Very fast!",
    "###Human: <Audio></Audio> Which instrument plays? ###Assistant: A loud guitar.###",
)
ENCODER = {
    "model_type": "mert_model",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8],
    "conv_kernel": [40, 24],
    "conv_stride": [40, 24],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": True,
    "layer_norm_eps": 1e-5,
}
LANGUAGE_MODEL = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
}


@functools.cache
def small_tokenizer() -> tokenizer.Tokenizer:
    """A byte-level BPE that puts a space before each text, as sentencepiece does."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder))
        return tokenizer.load(Path(folder))


def save_tokenizer(folder: Path) -> None:
    """Writes the files of `small_tokenizer`."""
    pairs = Tokenizer(models.BPE())
    pairs.normalizer = normalizers.Prepend(" ")
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(TEXT, trainer)
    pairs.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_models(folder: Path) -> None:
    """Saves `encoder` and `language_model`, with random weights."""
    mert = Mert(MertConfig.from_dict(ENCODER), rngs=nnx.Rngs(0))
    weights.save_encoder(mert, folder / "encoder", dtype="float32")
    rows = {"vocab_size": small_tokenizer().size}
    config = LlamaConfig.from_dict(LANGUAGE_MODEL | rows)
    llama = Llama(config, rngs=nnx.Rngs(1))
    weights.save_language_model(llama, folder / "language_model", dtype="float32")
    save_tokenizer(folder / "language_model")


def make_corpus(folder: Path, *, songs: int = 6) -> Path:
    """Writes songs of noise with questions and answers; the path of songs.jsonl.

    Each song has a caption and two questions. The last song is the split "test".
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for song in range(songs):
        noise = np.random.default_rng(song).normal(0, 0.1, 24_000 * (1 + song % 2))
        soundfile.write(folder / f"{song}.wav", noise, 24_000)
        audio = {
            "audio": f"{song}.wav",
            "split": "train" if song < songs - 1 else "test",
        }
        lines += [
            {**audio, "answer": f"It is piece {song}, slow and quiet."},
            {
                **audio,
                "question": "How fast is it?",
                "answer": "Very fast! " * (song + 1),
            },
            {**audio, "question": "What plays?", "answer": f"A guitar {song}."},
        ]
    path = folder / "songs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def small_values(folder: Path, run: str) -> dict[str, Any]:
    """Changes of `configs/tiny.py` to train small models on the songs of `folder`."""
    values = {
        "run": folder / run,
        "features.cache": folder / "cache",
        "features.window_frames": 10,
        "model.encoder": folder / "encoder",
        "model.language_model": folder / "language_model",
        "corpus.path": folder / "corpus" / "songs.jsonl",
    }
    for stage, steps in (("stage1", 5), ("stage2", 8)):
        small = {
            "steps": steps,
            "warmup_steps": 2,
            "batch_size": 8,
            "rows": 8,
            "max_windows": 2,
        }
        small |= {"checkpoint_every": 3, "log_every": 1, "max_tokens": 96}
        values |= {f"{stage}.{key}": value for key, value in small.items()}
    values["stage2.accumulate"] = 2
    return values


def small_flags(folder: Path, run: str, **changes: Any) -> list[str]:
    """`small_values` as flags, with changes spelt as for `small_config`."""
    values = small_values(folder, run)
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return [
        f"--config={ROOT / 'configs/tiny.py'}",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]


def small_config(folder: Path, run: str, **changes: Any) -> ConfigDict:
    """`small_values` as a config, with changes spelt `stage1__steps=3`."""
    config = load_config("tiny").get_config()
    values = small_values(folder, run)
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    with config.unlocked():
        config.update_from_flattened_dict(
            {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
        )
    return config


def load_config(name: str) -> ModuleType:
    """Imports a file of `configs/`, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VALIDATED = {"corpus.validation_split": "test", "stage2.validate_every": 3}


@functools.cache
def trained_folder() -> Path:
    """Models, songs and one finished run, `whole`, shared by all tests of a session.

    The run uses one device, was never interrupted, and validated as `VALIDATED` says.
    """
    # Imported here, as most users of this module do not train.
    from musilingo_jax.train import train

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_models(folder)
    make_corpus(folder / "corpus")
    changes = {key.replace(".", "__"): value for key, value in VALIDATED.items()}
    config = small_config(folder, "whole", mesh__data=1, **changes)
    train(config, typed=["--config=x.py"])
    return folder


def stopped_after(config: ConfigDict, *, stage: str, step: int) -> None:
    """Trains until an update is logged, and sends SIGTERM then."""
    from musilingo_jax.train import train
    from musilingo_jax.training.run_folder import RunFolder

    log = RunFolder.log

    def log_and_signal(run: RunFolder, row: Any) -> None:
        log(run, row)
        if (row["stage"], row["step"]) == (stage, step) and "loss" in row:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", log_and_signal)
        train(config)


COMPILED_ALIKE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""The environment in which a process compiles as `tests/training/conftest.py` says."""
