"""How large the benchmark of a card is: as released, or so small that a CPU does it."""

from dataclasses import dataclass

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig

# Where the audio of a prompt begins.
AUDIO_AT = 8


@dataclass(frozen=True)
class Sizes:
    """All sizes of a run.

    Attributes:
      llama: the language model.
      mert: the encoder.
      products: rows of the square matrices whose product's rate is measured.
      copied: bytes of the array that is copied.
      row_length: tokens of a packed row.
      examples: that share a row, equally long.
      windows: audio vectors of an example.
      answer: target tokens of an example.
      updates: numbers of rows of an update, each with what the backward pass keeps, a
        key of `remat.POLICIES`.
      encode_batches: numbers of clips to encode together.
      clip_seconds: length of one.
      context: tokens that each row holds when decoding begins.
      decode_rows: numbers of rows to decode together.
      decode_steps: tokens that each of them generates in a run.
      caption_batches: numbers of songs to caption together.
      caption_encoded: how many of these are encoded at a time.
      caption_seconds: of music for a caption.
      caption_prompt: tokens of a prompt, audio included.
      caption_tokens: of a caption.
    """

    llama: LlamaConfig
    mert: MertConfig
    products: tuple[int, ...]
    copied: int
    row_length: int
    examples: int
    windows: int
    answer: int
    updates: tuple[tuple[int, str], ...]
    encode_batches: tuple[int, ...]
    clip_seconds: float
    context: int
    decode_rows: tuple[int, ...]
    decode_steps: int
    caption_batches: tuple[int, ...]
    caption_encoded: int
    caption_seconds: float
    caption_prompt: int
    caption_tokens: int

    @property
    def example_length(self) -> int:
        """Tokens of an example."""
        return self.row_length // self.examples

    def samples(self, seconds: float) -> int:
        """Samples of so many seconds of sound."""
        return int(seconds * self.mert.sample_rate)


def _llama(
    width: int, depth: int, heads: int, mlp_width: int, vocab: int
) -> LlamaConfig:
    return LlamaConfig(
        vocab=vocab,
        width=width,
        depth=depth,
        heads=heads,
        key_heads=heads,
        head_dim=width // heads,
        mlp_width=mlp_width,
        norm_eps=1e-6,
        rope_theta=10_000.0,
        rope_scaling=None,
        tied=False,
    )


def mert(width: int, depth: int, heads: int, channels: int) -> MertConfig:
    """A MERT of this size whose convolutions are those of the released ones."""
    return MertConfig.from_dict(
        {
            "model_type": "mert_model",
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "feat_extract_norm": "group",
            "do_stable_layer_norm": True,
            "conv_dim": [channels] * 7,
            "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
            "conv_stride": [5, 2, 2, 2, 2, 2, 2],
            "num_conv_pos_embeddings": 128,
            "num_conv_pos_embedding_groups": 16,
            "layer_norm_eps": 1e-5,
            "do_normalize": True,
        }
    )


# Vicuna 7B, MERT-330M, four full examples of the second stage in a row, and captions
# like those of the public record: 30 s of music, 100 tokens.
CARD = Sizes(
    llama=_llama(4096, 32, 32, 11_008, 32_001),
    mert=mert(1024, 24, 16, 512),
    products=(4096, 8192, 16_384),
    copied=1 << 30,
    row_length=1280,
    examples=4,
    windows=7,
    answer=160,
    updates=((4, "dots"), (8, "dots"), (8, "nothing"), (16, "nothing")),
    encode_batches=(16, 64, 128),
    clip_seconds=10.0,
    context=1000,
    decode_rows=(1, 16, 64),
    decode_steps=32,
    caption_batches=(64, 128),
    caption_encoded=16,
    caption_seconds=30.0,
    caption_prompt=64,
    caption_tokens=100,
)
SMALL = Sizes(
    llama=_llama(64, 2, 4, 176, 128),
    mert=mert(64, 2, 4, 32),
    products=(256, 512),
    copied=16 << 20,
    row_length=128,
    examples=4,
    windows=3,
    answer=16,
    updates=((1, "dots"), (2, "nothing")),
    encode_batches=(1, 2),
    clip_seconds=1.0,
    context=100,
    decode_rows=(1, 4),
    decode_steps=8,
    caption_batches=(4,),
    caption_encoded=2,
    caption_seconds=3.0,
    caption_prompt=32,
    caption_tokens=10,
)
