"""Scores that papers report, for the tables of a report."""

from dataclasses import dataclass

from musilingo_jax.evaluation.protocols import MU_LLAMA, WHOLE


@dataclass(frozen=True)
class Published:
    """A row of a table in a paper, in percent.

    Its four scores are computed as our `legacy` ones.

    Attributes:
      corpus: the test corpus.
      system: the system that was tested.
      source: the paper.
      protocol: a name of `protocols.PROTOCOLS`.
      bleu: BLEU of characters.
      meteor: METEOR.
      rouge_l: ROUGE-L recall.
      bertscore: BERTScore recall.
    """

    corpus: str
    system: str
    source: str
    bleu: float
    meteor: float
    rouge_l: float
    bertscore: float
    protocol: str = WHOLE


_LIU = "Liu et al. 2024, Music Understanding LLaMA"
_MA = "Ma et al. 2025, CMI-Bench"

LEGACY = (
    Published("MusicQA", "LTU", _LIU, 24.2, 27.4, 32.6, 88.7),
    Published("MusicQA", "LLaMA-Adapter", _LIU, 27.3, 33.4, 41.3, 89.5, MU_LLAMA),
    Published("MusicQA", "MU-LLaMA", _LIU, 30.6, 38.5, 46.6, 90.1, MU_LLAMA),
    Published("MusicCaps", "MusiLingo-long", _MA, 21.50, 22.49, 30.29, 85.75),
    Published("Song Describer", "MusiLingo-long", _MA, 8.14, 14.32, 30.15, 85.28),
)
# Accuracy in multiple choice; random choice among four options gives 25.
MUCHOMUSIC = {
    "MusiLingo": 21.1,
    "MU-LLaMA": 32.4,
    "SALMONN": 41.8,
    "Qwen-Audio": 51.4,
}
MUCHOMUSIC_SOURCE = "Weck et al. 2024, MuChoMusic"
