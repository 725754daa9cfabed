"""What all published stages of MusiLingo's training have in common.

The configs of the stages (`configs/pretrain_*.py`, `configs/finetune_*.py`) start from
these sections and add their own settings. The numbers are those of the original's
configs and code (Deng et al. 2023, "MusiLingo"), which counts micro-batches on one GPU
where this program counts updates:

    original    epochs × micro-batches per epoch, accumulated by n
    here        steps = epochs × micro-batches ÷ n, rounded down

Where training differs from the original, and why, is in docs/differences.md.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released

ENCODER = "m-a-p/MERT-v1-330M"
# Contains Vicuna 7B v0 merged, which is otherwise made from LLaMA 7B and a delta.
LANGUAGE_MODEL = "m-a-p/MusiLingo-long-v1"


def experiment(run: str) -> ConfigDict:
    """A config without the corpus and the stages.

    Args:
      run: folder of the run.
    """
    config = ConfigDict()
    config.run = run
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases.

    config.model = ConfigDict()
    config.model.pretrained = ""  # The parts are named one by one:
    config.model.encoder = ENCODER
    config.model.language_model = LANGUAGE_MODEL
    config.model.adapter = "random"
    config.model.dtype = released.DTYPE
    config.model.quantization = ""  # "int8": the language model in 8 bits.

    config.corpus = ConfigDict()
    config.corpus.path = ""
    config.corpus.mixture = ConfigDict()  # Several, by weight: corpora/mixture.py.
    config.corpus.train_split = "train"
    config.corpus.validation_split = ""
    config.corpus.test_split = "test"

    # The cache of `configs/features/mert_330m.py`, which all of these configs share.
    config.features = ConfigDict(asdict(released.FEATURES))
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m"
    config.features.allow_missing = False

    # Runs unchanged on up to 32 devices: micro-batches are too small to be split over
    # many devices, but weights are not.
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": -1})

    config.generate = ConfigDict(asdict(released.GENERATE))
    return config


def first_stage() -> ConfigDict:
    """Captions, with no text around the audio: <s> + audio + caption + newline."""
    stage = _stage()
    stage.prompt.template = ""
    stage.prompt.instruction = ""
    stage.prompt.end_sign = "\n"
    stage.prompt.max_answer_tokens = 32
    stage.questions = "captions"
    stage.max_tokens = 64  # 1 + 7 + 32 at most, so no example is left out.
    stage.learning_rate = 1e-4
    stage.final_learning_rate = 8e-5
    return stage


def second_stage() -> ConfigDict:
    """Questions and answers, in a conversation."""
    stage = _stage()
    stage.questions = "questions"
    stage.max_tokens = 320  # 160 of answer, 7 of audio, about 130 of question.
    stage.learning_rate = 3e-5
    stage.final_learning_rate = 1e-5
    return stage


def _stage() -> ConfigDict:
    """What both stages have in common."""
    stage = ConfigDict()
    stage.prompt = ConfigDict(asdict(released.PROMPT))
    stage.rows = 1  # All examples of a micro-batch in one row.
    stage.accumulate = 1
    stage.max_windows = released.MAX_WINDOWS
    stage.warmup_learning_rate = 1e-6
    stage.weight_decay = 0.05
    stage.remat = True
    stage.checkpoint_every = 100
    stage.validate_every = 0
    stage.validation_examples = 512
    stage.log_every = 10
    stage.keep = 2
    return stage
