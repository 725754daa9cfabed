"""A whole model with random weights, small enough to be made in a test."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import tokenizers
from flax import nnx
from ml_collections import ConfigDict
from tokenizers import decoders, models, pre_tokenizers

from musilingo_jax.answering import config as generate_config
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.padded_prompts import PromptTokens
from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama, UnstackedLlama, unstacked
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.tokenizer import Tokenizer, load

M = TypeVar("M", bound=nnx.Module)
MERGES = [("#", "#"), ("##", "#"), ("!", "#"), ("#", "?"), ("Ġ", "#"), ("Ċ", "Ċ")]
PIECES = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
PIECES += ["".join(merge) for merge in MERGES]
PROMPT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=16,
)
GREEDY = dataclasses.replace(generate_config.GREEDY, max_new_tokens=12, batch_size=4)
RATE = 1000
MERT = MertConfig.from_dict(
    {
        "model_type": "hubert",
        "sample_rate": RATE,
        "conv_dim": [8, 8],
        "conv_kernel": [10, 4],
        "conv_stride": [10, 4],
        "feat_extract_norm": "group",
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "do_stable_layer_norm": True,
        "layer_norm_eps": 1e-5,
    }
)


def token(piece: str) -> int:
    """The id of a piece, spelt byte-level: "Ġ" is the space."""
    return PIECES.index(piece)


@functools.cache
def tokenizer() -> Tokenizer:
    """Bytes, and a few merges that write "###" in several ways."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder))
        return load(Path(folder))


def save_tokenizer(folder: Path) -> None:
    """Writes the files of `tokenizer`."""
    vocab = {piece: index for index, piece in enumerate(PIECES)}
    bpe = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


LLAMA_1 = {"num_key_value_heads": 4}
LLAMA_3 = {
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def llama_config(*, width: int, depth: int, **shape: Any) -> LlamaConfig:
    values = {
        "model_type": "llama",
        "vocab_size": tokenizer().size + 1,
        "hidden_size": width,
        "intermediate_size": 48,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
    }
    return LlamaConfig.from_dict(values | shape)


def filled(make: Callable[[], M], seed: int) -> M:
    """A module with NumPy's random numbers, which take no time to compile.

    Args:
      make: makes the module, of which only the shapes are used.
      seed: of the numbers.
    """
    generator = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-2].name
        if name in ("scale", "bias"):
            return jnp.full(leaf.shape, name == "scale", jnp.float32)
        fan_in = leaf.shape[-1 if name == "embedding" else -2]
        values = generator.normal(scale=fan_in**-0.5, size=leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(make))


@functools.cache
def llama(shape: str = "LLAMA_1") -> Llama:
    """A random model whose strong attention makes it answer different prompts apart.

    `shape` is "LLAMA_1" or "LLAMA_3".
    """
    config = llama_config(width=32, depth=2, **globals()[shape])
    model = filled(lambda: Llama(config, rngs=nnx.Rngs(0)), seed=3)
    for layer in (model.layers.query, model.layers.value, model.layers.out):
        layer.kernel[...] = jnp.asarray(4 * np.asarray(layer.kernel[...]))
    return model


def decoding(model: Llama) -> UnstackedLlama:
    """A copy of a model, for decoding."""
    return unstacked(jax.tree.map(jnp.copy, model))


def parrot(script: list[int]) -> Llama:
    """A model that answers every prompt with `script`; its tokens must differ.

    Its layers add nothing to the embeddings, which are one-hot, and its head leads from
    each token to the next: from the last one of the prompt to the first of `script`,
    and so on.
    """
    (*_, last) = encode(tokenizer(), PROMPT, "", None, windows=1).tokens
    assert len({last, *script}) == 1 + len(script)
    model = jax.tree.map(lambda array: array, _mute())
    following = np.zeros(model.head.kernel.shape, np.float32)
    following[[last, *script[:-1]], script] = 1
    model.head.kernel[...] = jnp.asarray(following)
    return model


@functools.cache
def _mute() -> Llama:
    vocab = tokenizer().size + 1
    width = 8 * -(-vocab // 8)
    config = llama_config(width=width, depth=1, **LLAMA_1)
    model = filled(lambda: Llama(config, rngs=nnx.Rngs(0)), seed=0)
    model.embedding[...] = jnp.asarray(np.eye(vocab, width, dtype=np.float32))
    for silent in (model.layers.out, model.layers.down):
        silent.kernel[...] = jnp.zeros_like(silent.kernel[...])
    return model


@functools.cache
def answerer() -> Answerer:
    """The random language model with an adapter."""
    return Answerer(adapter(32), decoding(llama()), tokenizer())


def parrot_answerer(script: list[int]) -> Answerer:
    """An `Answerer` with a `parrot`."""
    llama = parrot(script)
    return Answerer(adapter(llama.config.width), decoding(llama), tokenizer())


def ending_with(ends: list[int], vocab: int) -> Stops:
    """These tokens end an answer, and no text does."""
    kind = np.zeros((1, vocab), np.int32)
    kind[0, ends] = 1
    return Stops(jnp.array([[0, 1], [1, 1]], jnp.int32), jnp.asarray(kind))


def embeddings(model: Llama, prompt: PromptTokens) -> np.ndarray:
    """What a language model reads, [time, width], put together without our code."""
    text = np.asarray(model.embedding)[list(prompt.tokens)]
    projection = adapter(model.config.width).projection
    audio = prompt.features @ np.asarray(projection.kernel) + np.asarray(
        projection.bias
    )
    slots = np.array(prompt.audio_slot)
    text[slots >= 0] = audio[slots[slots >= 0]]
    return text


def requests(count: int, *, alike: bool = True) -> list[tuple[np.ndarray, str]]:
    """Songs of 3 or 4 windows, and questions of four or seven lengths.

    With `alike` they differ in length by less than lengths are padded, so that one
    program reads all of them.
    """
    generator = np.random.default_rng(1)
    repeated = [4 + i * 3 % 4 if alike else i * 5 % 7 for i in range(count)]
    return [
        (
            generator.normal(size=(3 + i % 2, MERT.hidden_size)).astype("f"),
            "Why? " * repeated[i] + "How?",
        )
        for i in range(count)
    ]


def adapter(width_out: int) -> LinearBridge:
    """A random adapter from the encoder to a language model of this width."""
    return filled(
        lambda: LinearBridge(MERT.hidden_size, width_out, rngs=nnx.Rngs(0)), seed=4
    )


def save_model(folder: Path, llama: Llama) -> None:
    """Writes encoder, language model with tokenizer, adapter and config, as a run."""
    encoder = filled(lambda: Mert(MERT, rngs=nnx.Rngs(0)), seed=5)
    weights.save_encoder(encoder, folder / "encoder", dtype=np.float32)
    weights.save_language_model(llama, folder / "language_model", dtype=np.float32)
    save_tokenizer(folder / "language_model")
    weights.save_adapter(
        Parts(bridge=adapter(llama.config.width)),
        folder / "adapter",
        dtype=np.float32,
        window_frames=10,
        trained_with=None,
    )
    content = config(folder, corpus="").to_json_best_effort()
    (folder / "config.json").write_text(content)


def save_corpus(folder: Path, clips: int) -> Path:
    """Writes tones of different heights with questions, half of them for training."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(clips):
        split = "train" if number % 2 else "test"
        pitch = ("low", "high")[number // 2 % 2]
        seconds = 1 + 0.3 * number
        time = np.arange(int(RATE * seconds)) / RATE
        tone = 0.5 * np.sin(2 * np.pi * (40 + 30 * number) * time)
        soundfile.write(folder / f"{number}.wav", tone, RATE)
        common = {"audio": f"{number}.wav", "split": split}
        lines += [
            {**common, "answer": f"A tone, {pitch}."},
            {
                **common,
                "question": "How high is it?",
                "answer": f"It is {pitch}.",
                "attribute": "pitch",
                "value": pitch,
            },
            {**common, "question": "What is it?", "answer": f"A {pitch} tone."},
        ]
    (folder / "songs.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    return folder / "songs.jsonl"


def config(folder: Path, corpus: str) -> ConfigDict:
    """A config like `configs/tiny.py`: stage 1 learns captions, stage 2 questions."""
    stage = {
        "steps": 2,
        "batch_size": 2,
        "rows": 2,
        "accumulate": 1,
        "validate_every": 0,
        "validation_examples": 2,
        "max_tokens": 128,
        "max_windows": 4,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "warmup_learning_rate": 1e-6,
        "warmup_steps": 1,
        "weight_decay": 0.05,
        "remat": "everything",
        "checkpoint_every": 2,
        "log_every": 1,
        "keep": 1,
    }
    captions = {"template": "", "instruction": "", "end_sign": "\n"}
    asking = {name: getattr(PROMPT, name) for name in captions}
    return ConfigDict(
        {
            "run": str(folder / "run"),
            "seed": 0,
            "model": {
                "encoder": str(folder / "encoder"),
                "language_model": str(folder / "language_model"),
                "adapter": "random",
                "dtype": "float32",
            },
            "corpus": {"path": corpus, "train_split": "train", "test_split": "test"},
            "features": {
                "window_frames": 10,
                "chunk_windows": 2,
                "batch_size": 4,
                "shard_clips": 64,
                "cache": str(folder / "cache"),
                "allow_missing": False,
            },
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "stages": ("stage1", "stage2"),
            "stage1": {
                **stage,
                "questions": "captions",
                "prompt": {**captions, "max_answer_tokens": 16},
            },
            "stage2": {
                **stage,
                "questions": "questions",
                "prompt": {**asking, "max_answer_tokens": 16},
            },
            "generate": {
                "max_new_tokens": 6,
                "min_new_tokens": 0,
                "temperature": 0.0,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "beams": 1,
                "length_penalty": 1.0,
                "stop": (),
                "seed": 0,
                "batch_size": 4,
            },
        }
    )
