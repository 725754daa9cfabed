"""The language model of a benchmark: its shape from flags, its weights random."""

from pathlib import Path

from absl import flags


def define(*, width: int, depth: int, heads: int, mlp: int) -> None:
    """Defines the flags with these defaults."""
    flags.DEFINE_integer("width", width, "width of the language model")
    flags.DEFINE_integer("depth", depth, "layers of the language model")
    flags.DEFINE_integer("heads", heads, "heads of the language model")
    flags.DEFINE_integer("mlp", mlp, "width inside the mlp of the language model")
    flags.DEFINE_integer("vocab", 32_000, "tokens of the language model")


def config_json() -> dict:
    """The `config.json` of the model."""
    given = flags.FLAGS
    return {
        "model_type": "llama",
        "vocab_size": given.vocab,
        "hidden_size": given.width,
        "intermediate_size": given.mlp,
        "num_hidden_layers": given.depth,
        "num_attention_heads": given.heads,
        "num_key_value_heads": given.heads,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
    }


def write_model(folder: Path) -> None:
    """Saves a random model in the released layout."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**config_json())
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
