r"""Second stage of MU-LLaMA: LoRA, biases and norms of LLaMA 2 learn from MusicQA.

    python -m musilingo_jax.train --config=configs/finetune_mu_llama.py

Purpose: the published MU-LLaMA. The bridge stays as the first stage left it.

Data: 70,011 questions about 7,779 clips of MagnaTagATune to train on, and 5,040 about
560 clips of MTG-Jamendo to test, as in `configs/finetune_music_qa.py`.

Starts from the adapter of `runs/pretrain_mu_llama`; another one is a flag.

Published: LoRA of rank 16 on all linear maps without a scale, biases on those of
queries, outputs and the mlp, and the scales of all norms: 41.3 million numbers. 1
example × 32 accumulated, a learning rate of 1e-3 · 32 / 256 = 1.25e-4 after a warm-up
of one epoch, then half a cosine to 0; 20 epochs, 43,740 updates. Others found the best
validation after the first epoch.

Differences: as in `configs/pretrain_mu_llama.py`; examples have 512 tokens, as there,
but a cut answer keeps its end.

Expected: time was not measured at this size. The published scores are BLEU .306,
METEOR .385, ROUGE-L .466 and BERTScore .901, of answers to every second minute of a
song, which were joined; without the flag, a song has one answer:

    python -m musilingo_jax.evaluate --config=configs/finetune_mu_llama.py \
      --protocol=mu_llama
"""

from ml_collections import ConfigDict

from musilingo_jax.models.lora import MAPS
from musilingo_jax.pretrained.mu_llama_release import BIASED
from musilingo_jax.training import mu_llama


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = mu_llama.experiment("runs/finetune_mu_llama")
    config.model.adapter = "runs/pretrain_mu_llama"
    config.corpus.path = "corpora/music_qa"

    config.stages = ("stage2",)
    stage2 = config.stage2 = mu_llama.stage()
    stage2.learns_bridge = False
    stage2.tuning.update(
        rank=16,
        alpha=16.0,
        targets=MAPS,
        biases=BIASED,
        norms=True,
    )
    stage2.batch_size = 8
    stage2.accumulate = 4
    stage2.max_tokens = 512
    stage2.learning_rate = 1e-3 * 32 / 256
    stage2.steps = 43_740
    stage2.warmup_steps = 43_740 // 20
    return config
