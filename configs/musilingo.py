"""A released MusiLingo: answers questions as it is, or trains further on your songs.

    python -m musilingo_jax.generate --config=configs/musilingo.py --out=answers.jsonl
    python -m musilingo_jax.train --config=configs/musilingo.py --config.corpus.path=…

Purpose: to use a released model in any of the programs. The model is named after a
colon, as a folder or on the hub; the default is `m-a-p/MusiLingo-long-v1`:

    --config=configs/musilingo.py:m-a-p/MusiLingo-short-v1

Prompt and decoding are those of the authors' evaluation. With `,demo` behind the name,
they are those of their demo:

    --config=configs/musilingo.py:m-a-p/MusiLingo-long-v1,demo

Data: a file as for `configs/own_songs.py`. Prompt and windows are those that the
adapter was trained with; the learning rates and the 32 examples of an update are those
of the published second stage. The number of steps suits a few thousand questions.

Expected: 14 GB of memory for the weights in bfloat16, on one device or over a mesh
(`--config.mesh.fsdp=…`). On a processor without bfloat16 units that has memory for it,
28 GB in float32 (`dtype` is "auto"). Neither time nor scores have been measured with
the released files.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is MODEL, or MODEL and a style: `MODEL,demo`."""
    model, _, name = arg.rpartition(",")
    if name not in released.STYLES:
        model, name = arg, released.EVALUATION
    style = released.STYLES[name]
    config = original.released_experiment("runs/musilingo")
    config.model.pretrained = model or "m-a-p/MusiLingo-long-v1"
    config.corpus.path = "songs.jsonl"

    config.stages = ("stage2",)
    config.generate = ConfigDict(asdict(style.generate))
    stage2 = config.stage2 = original.second_stage()
    stage2.prompt = ConfigDict(asdict(style.prompt))
    stage2.steps = 500
    stage2.batch_size = 32
    stage2.rows = 8  # Four examples in each: 500 to 1,000 tokens.
    stage2.max_tokens = 512
    stage2.warmup_steps = 50
    stage2.validation_examples = 256
    return config
