"""Settings that somebody has typed and that this way of decoding does not use."""

from collections.abc import Collection

from musilingo_jax.answering.config import GenerateConfig

# Of `sampling.Sample`: at temperature 0 the likeliest token is taken.
_DRAWING = ("top_k", "top_p", "min_p", "seed")


def notes(generate: GenerateConfig, typed: Collection[str]) -> list[str]:
    """One sentence for each setting that changes no answer.

    Args:
      generate: how answers are decoded.
      typed: the keys of the config that the command line sets, such as
        "generate.top_p". What a config file has for other ways is no mistake.
    """
    why = {
        **dict.fromkeys(_DRAWING, "with a temperature above 0"),
        "length_penalty": "with more than one of config.generate.beams",
    }
    used = {
        **dict.fromkeys(_DRAWING, generate.temperature > 0),
        "length_penalty": generate.beams > 1,
    }
    return [
        f"note: --config.generate.{key} has no effect here, only {why[key]}"
        for key in why
        if f"generate.{key}" in typed and not used[key]
    ]
