"""Your own songs: goes on teaching a trained adapter with what you say about them.

    python -m musilingo_jax.train --config=configs/own_songs.py:path/to/songs.jsonl

Purpose: fine-tuning, the second stage only, from the shipped adapter. Data: a file with
one line per question, its paths relative to the file:

    {"audio": "a.ogg", "question": "How fast is it?", "answer": "It is slow."}
    {"audio": "b.mp3", "question": "Who plays?", "answer": "A piano.", "split": "test"}

Lines without `split` are learnt from; those of the split "test" are for evaluation.
Songs may be of any length: they are heard in stretches of 13 seconds, and each time one
is drawn, another eight windows of 4.33 seconds of it are looked at.

Expected: a minute or two on a laptop for a few dozen songs. The model is the embedded
one, which is tiny; `configs/musilingo.py` does the same with a released one.

A table saved as CSV with the same keys will do in place of JSON lines, and a folder in
place of a file. `start` and `end` in seconds, where given, are the stretch of the song
that a line speaks of.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is the path of the songs' file, `songs.jsonl` if empty."""
    config = ConfigDict()
    config.run = "runs/own_songs"
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases to report to.

    config.model = ConfigDict()
    config.model.pretrained = "musilingo-tiny"  # A part that is "" is this one's.
    config.model.encoder = ""
    config.model.language_model = ""
    config.model.adapter = ""
    config.model.dtype = "float32"
    config.model.quantization = ""  # "int8": the language model in 8 bits.

    config.corpus = ConfigDict()
    config.corpus.path = arg or "songs.jsonl"
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

    config.stages = ("stage2",)

    stage2 = config.stage2 = ConfigDict()
    stage2.prompt = ConfigDict()
    stage2.prompt.template = "###Human: {} ###Assistant: "
    stage2.prompt.instruction = "<Audio><AudioHere></Audio> {}"
    stage2.prompt.end_sign = "###"
    stage2.prompt.max_answer_tokens = 160
    stage2.questions = "questions"
    stage2.steps = 200
    stage2.batch_size = 8
    stage2.rows = 8  # Fewer save padding, which pays in runs of many updates.
    stage2.accumulate = 1
    stage2.max_tokens = 256
    stage2.max_windows = 8
    stage2.learning_rate = 3e-4
    stage2.final_learning_rate = 1e-4
    stage2.warmup_learning_rate = 1e-6
    stage2.warmup_steps = 20
    stage2.weight_decay = 0.05
    stage2.remat = False
    stage2.checkpoint_every = 50
    stage2.validate_every = 0
    stage2.validation_examples = 256
    stage2.log_every = 5
    stage2.keep = 2

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
