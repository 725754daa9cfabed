"""The embedded model on the embedded songs: the whole method in a minute or two.

    python -m musilingo_jax.train --config=configs/tiny.py

Purpose: see every part work, on any machine, with nothing to download. Encoder and
language model are the embedded ones, frozen; the adapter starts from random numbers and
learns, first from captions alone, then from questions and answers, as MusiLingo's does.

Data: the embedded corpus of rendered songs with known answers.

Expected: half a minute on two cores. An adapter from random numbers and 64 clips names
the style of three in four held-out clips, the drums of all, the key (of 24) of every
second; `evaluate` says it with intervals and controls. The shipped adapter learnt from
3,000 clips and knows more; `--config.model.adapter=musilingo-tiny` starts from that.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = ConfigDict()
    config.run = "runs/tiny"
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases to report to.

    config.model = ConfigDict()
    config.model.pretrained = "musilingo-tiny"  # A part that is "" is this one's.
    config.model.encoder = ""
    config.model.language_model = ""
    config.model.adapter = "random"
    config.model.dtype = "float32"
    config.model.quantization = ""  # "int8": the language model in 8 bits.

    config.corpus = ConfigDict()
    config.corpus.path = "musilingo-tiny-corpus"
    config.corpus.mixture = ConfigDict()  # Several, by weight: corpora/mixture.py.
    config.corpus.train_split = "train"
    config.corpus.validation_split = ""
    config.corpus.test_split = "test"

    config.features = ConfigDict()
    config.features.window_frames = 108  # 4.33 s at 25 frames a second.
    config.features.chunk_windows = 3
    config.features.batch_size = 8
    config.features.reduction = "pooled"
    config.features.shard_clips = 256
    config.features.cache = config.get_ref("run") + "/cache"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.stages = ("stage1", "stage2")

    # Captions, without any text around the audio.
    stage1 = config.stage1 = ConfigDict()
    stage1.prompt = ConfigDict()
    stage1.prompt.template = ""
    stage1.prompt.instruction = ""
    stage1.prompt.end_sign = "\n"
    stage1.prompt.max_answer_tokens = 32
    stage1.questions = "captions"
    stage1.steps = 150
    stage1.batch_size = 16
    stage1.rows = 16  # Fewer save padding, and take longer to compile than that saves.
    stage1.accumulate = 1
    stage1.max_tokens = 64
    stage1.max_windows = 8
    stage1.learning_rate = 3e-3
    stage1.final_learning_rate = 1e-3
    stage1.warmup_learning_rate = 1e-6
    stage1.warmup_steps = 15
    stage1.weight_decay = 0.05
    stage1.remat = False
    stage1.checkpoint_every = 50
    stage1.validate_every = 0
    stage1.validation_examples = 256
    stage1.log_every = 5
    stage1.keep = 2

    # Questions and answers, in a conversation.
    stage2 = config.stage2 = stage1.copy_and_resolve_references()
    stage2.prompt.template = "###Human: {} ###Assistant: "
    stage2.prompt.instruction = "<Audio><AudioHere></Audio> {}"
    stage2.prompt.end_sign = "###"
    stage2.prompt.max_answer_tokens = 160
    stage2.questions = "questions"
    stage2.steps = 250
    stage2.max_tokens = 256
    stage2.learning_rate = 1e-3
    stage2.final_learning_rate = 3e-4
    stage2.warmup_steps = 25

    config.generate = ConfigDict()
    config.generate.max_new_tokens = 160
    config.generate.min_new_tokens = 0
    config.generate.temperature = 0.0  # The likeliest token; above 0, a draw,
    config.generate.top_k = 0  # with the next three among the likelier ones.
    config.generate.top_p = 0.5
    config.generate.min_p = 0.0
    config.generate.repetition_penalty = 1.0
    config.generate.beams = 1  # More: a search, for which the temperature is 0.
    config.generate.length_penalty = 1.0
    config.generate.stop = ()  # Texts, besides the end sign.
    config.generate.seed = 0
    config.generate.batch_size = 16
    return config
