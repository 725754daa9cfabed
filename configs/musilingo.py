"""A released MusiLingo: answers as it is, or goes on learning from your songs.

    python -m musilingo_jax.train --config=configs/musilingo.py --config.corpus.path=…
    python -m musilingo_jax.generate --config=configs/musilingo.py --out=answers.jsonl

Purpose: the released models in any of the programs. The model is named after a colon,
as a folder or on the hub; without, it is `m-a-p/MusiLingo-long-v1`:

    --config=configs/musilingo.py:m-a-p/MusiLingo-short-v1

Data: a file like that of `configs/own_songs.py`. Prompt and windows are those that the
adapter was trained with; learning rates and the 32 examples of an update those of the
published second stage. The steps are for a few thousand questions.

Expected: 14 GB of memory for the weights in bfloat16, on one device or over a mesh
(`--config.mesh.fsdp=…`). Not measured yet with the released files themselves.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is the model, `m-a-p/MusiLingo-long-v1` if empty."""
    config = ConfigDict()
    config.run = "runs/musilingo"
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases to report to.

    config.model = ConfigDict()
    config.model.pretrained = arg or "m-a-p/MusiLingo-long-v1"
    config.model.encoder = ""
    config.model.language_model = ""
    config.model.adapter = ""
    config.model.dtype = released.DTYPE
    config.model.quantization = ""  # "int8": the language model in 8 bits.

    config.corpus = ConfigDict()
    config.corpus.path = "songs.jsonl"
    config.corpus.mixture = ConfigDict()  # Several, by weight: corpora/mixture.py.
    config.corpus.train_split = "train"
    config.corpus.validation_split = ""
    config.corpus.test_split = "test"

    config.features = ConfigDict(asdict(released.FEATURES))
    config.features.shard_clips = 256
    config.features.cache = config.get_ref("run") + "/cache"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.stages = ("stage2",)

    stage2 = config.stage2 = ConfigDict()
    stage2.prompt = ConfigDict(asdict(released.PROMPT))
    stage2.questions = "questions"
    stage2.steps = 500
    stage2.batch_size = 32
    stage2.rows = 8  # Four examples in each: 500 to 1,000 tokens.
    stage2.accumulate = 1
    stage2.max_tokens = 512
    stage2.max_windows = released.MAX_WINDOWS
    stage2.learning_rate = 3e-5
    stage2.final_learning_rate = 1e-5
    stage2.warmup_learning_rate = 1e-6
    stage2.warmup_steps = 50
    stage2.weight_decay = 0.05
    stage2.remat = True
    stage2.checkpoint_every = 100
    stage2.validate_every = 0
    stage2.validation_examples = 256
    stage2.log_every = 10
    stage2.keep = 2

    config.generate = ConfigDict(asdict(released.GENERATE))
    return config
