"""The sections of a config, with the values that most experiments share.

No program has a default for a number of an experiment: each is a key of its config. So
that a config can state only what is its own, it starts from these sections, by way of

    original.py     the models that MusiLingo was published with, 7 billion parameters
    embedded.py     the embedded models, a few million parameters
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.models.lora import NOTHING


def experiment(
    run: str, *, dtype: str, features: FeatureConfig, generate: GenerateConfig
) -> ConfigDict:
    """A config without stages; the corpus and the parts of the model are still empty.

    Args:
      run: folder of the run, which also holds the features.
      dtype: of the frozen models, or `number_type.AUTO`.
      features: how songs are encoded.
      generate: how answers are generated.
    """
    config = ConfigDict()
    config.run = run
    config.seed = 0
    config.wandb = ""  # A project of Weights & Biases.

    config.model = ConfigDict()
    config.model.pretrained = ""  # Provides each part that is "".
    config.model.encoder = ""
    config.model.language_model = ""
    config.model.adapter = ""
    config.model.dtype = dtype
    config.model.quantization = ""  # "int8": the language model in 8 bits.

    config.corpus = ConfigDict()
    config.corpus.path = ""
    config.corpus.mixture = ConfigDict()  # Several, by weight: corpora/mixture.py.
    config.corpus.train_split = "train"
    config.corpus.validation_split = ""
    config.corpus.test_split = "test"

    config.features = ConfigDict(asdict(features))
    config.features.shard_clips = 256
    config.features.cache = config.get_ref("run") + "/cache"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.generate = ConfigDict(asdict(generate))
    return config


def first_stage() -> ConfigDict:
    """Captions, with no text around the audio: <s> + audio + caption + newline."""
    stage = _stage()
    stage.prompt.template = ""
    stage.prompt.instruction = ""
    stage.prompt.end_sign = "\n"
    stage.prompt.max_answer_tokens = 32
    stage.questions = "captions"
    stage.max_tokens = 64  # 1 + 8 + 32 at most, so no example is left out.
    return stage


def second_stage() -> ConfigDict:
    """Questions and answers, in a conversation."""
    stage = _stage()
    stage.questions = "questions"
    return stage


def _stage() -> ConfigDict:
    """What both stages have in common."""
    stage = ConfigDict()
    stage.prompt = ConfigDict(asdict(released.PROMPT))
    stage.accumulate = 1
    stage.warmup_learning_rate = 1e-6
    stage.weight_decay = 0.05
    stage.beta2 = 0.999
    stage.first_moment = "float32"
    stage.max_gradient_norm = 0.0
    stage.learns_bridge = True
    stage.learns_layers = False
    stage.tuning = ConfigDict(asdict(NOTHING))  # rank=16 is LoRA: models/lora.py.
    stage.validate_every = 0
    stage.keep = 2
    return stage
