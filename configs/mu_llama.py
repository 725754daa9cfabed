"""The released MU-LLaMA: answers questions as it is, or trains further on your songs.

    python -m musilingo_jax.generate --config=configs/mu_llama.py --out=answers.jsonl
    python -m musilingo_jax.train --config=configs/mu_llama.py --config.corpus.path=…

Purpose: to use the released model in any of the programs. It is named after a colon, as
a folder or on the hub; the default is `mu-llama/MU-LLaMA`:

    --config=configs/mu_llama.py:path/to/MU-LLaMA

Its one file, `checkpoint.pth`, holds the encoder, LLaMA 2, the bridge, LoRA and biases;
its 17.7 GB are downloaded when it is first used. Prompt and decoding are those of the
authors' programs, but a song is heard whole. MusicCaps is no test set for it: it learnt
from all of its clips.

Data: a file as for `configs/own_songs.py`. Training goes on with LoRA and biases; the
learning rate is that of the published second stage. The number of steps suits a few
thousand questions.

Expected: 17 GB of memory for the weights in bfloat16, on one device or over a mesh
(`--config.mesh.fsdp=…`). Neither time nor scores have been measured with the released
file.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.models.lora import MAPS
from musilingo_jax.pretrained.mu_llama_release import BIASED
from musilingo_jax.training import mu_llama


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is the model."""
    config = mu_llama.experiment("runs/mu_llama")
    config.model.pretrained = arg or "mu-llama/MU-LLaMA"
    config.model.encoder = config.model.language_model = config.model.adapter = ""
    config.corpus.path = "songs.jsonl"

    config.stages = ("stage2",)
    stage2 = config.stage2 = mu_llama.stage()
    stage2.prompt = ConfigDict(asdict(released.MU_LLAMA_RELEASED_PROMPT))
    stage2.learns_bridge = False
    stage2.tuning.update(
        rank=16,
        alpha=16.0,
        targets=MAPS,
        biases=BIASED,
        norms=False,  # Those that were trained are the language model's now.
    )
    stage2.batch_size = 8
    stage2.accumulate = 4
    stage2.max_tokens = 512
    stage2.learning_rate = 1e-3 * 32 / 256
    stage2.steps = 500
    stage2.warmup_steps = 50
    stage2.validation_examples = 256
    return config
