"""What all published stages of MusiLingo's training have in common.

The configs of the stages (`configs/pretrain_*.py`, `configs/finetune_*.py`) begin with
these sections and say what is their own. The numbers are those of the original's
configs and code (Deng et al. 2023, "MusiLingo"). An update of the adapter is counted
there in micro-batches, here in updates:

    original    epochs × micro-batches, of which so many accumulate to an update
    here        steps = epochs × micro-batches ÷ accumulated, rounded down

The original states its batch per GPU. One GPU is assumed here, as its configs do
(`world_size: 1`; its README leaves the number open), so that the batch of the table is
the whole batch, on any number of devices. Done otherwise, in all stages, because the
original got it wrong or left it open:

    - A warm-up of W micro-batches is one of W ÷ accumulated updates here, so that the
      same examples are seen in it. The cosine then begins at the highest learning rate.
      The original's has been falling since the first step, so that at the end of the
      warm-up its rate leaps down, by 7 % of the way to the floor (a sixth of the run)
      or 15 % (a quarter).
    - An update has always the same number of examples. The original counts anew in each
      epoch and, where that does not come out even, adds what is left to the first
      update of the next: 1,872 updates of unequal size where here are 1,875.
    - The loss of an update is the mean over all its target tokens, however they are
      split. The original adds up the means of its micro-batches, so that its gradient
      is 16 times as long (which Adam takes out again) and a token of a short answer
      weighs more. So the 2 × 16 examples of an update may be 8 × 4 here, in a row each.
    - The encoder hears what the clip holds, resampled before it is cut, without the
      masks of SpecAugment and without padding in the mean; once, into a cache.
    - No padding stands within a sequence. A long answer keeps its end sign when it is
      cut. A clip that cannot be read stops the run instead of becoming another clip.
    - Weights are in bfloat16 where the original has float16 and scales its loss.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released

ENCODER = "m-a-p/MERT-v1-330M"
# Holds Vicuna 7B v0 already merged, which otherwise one makes of LLaMA 7B and a delta.
LANGUAGE_MODEL = "m-a-p/MusiLingo-long-v1"


def experiment(run: str) -> ConfigDict:
    """Everything but the corpus and the stage.

    Args:
      run: folder of the run.
    """
    config = ConfigDict()
    config.run = run
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases to report to.

    config.model = ConfigDict()
    config.model.pretrained = ""  # Parts are named one by one:
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

    # The cache of `configs/features/mert_330m.py`, which all these experiments share.
    config.features = ConfigDict(asdict(released.FEATURES))
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m"
    config.features.allow_missing = False

    # So that it runs on any machine of up to 32 devices as it is: micro-batches are too
    # small to be dealt out to many, and half of the weights are half of the memory.
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
    stage.max_tokens = 64  # 1 + 7 + 32 at most: nothing is left out.
    stage.learning_rate = 1e-4
    stage.final_learning_rate = 8e-5
    return stage


def second_stage() -> ConfigDict:
    """Questions and answers, in a conversation."""
    stage = _stage()
    stage.questions = "questions"
    stage.max_tokens = 320  # 160 of the answer, 7 of audio, some 130 of the question.
    stage.learning_rate = 3e-5
    stage.final_learning_rate = 1e-5
    return stage


def _stage() -> ConfigDict:
    """What both stages have in common."""
    stage = ConfigDict()
    stage.prompt = ConfigDict(asdict(released.PROMPT))
    stage.rows = 1  # All examples of a micro-batch behind one another.
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
