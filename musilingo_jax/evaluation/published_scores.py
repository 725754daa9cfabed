"""What others report, and how: rows to stand beside ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of a paper, in percent.

    The four scores are the `legacy` ones: BLEU of characters, METEOR, ROUGE-L recall
    and BERTScore recall.
    """

    corpus: str
    system: str
    source: str
    bleu: float
    meteor: float
    rouge_l: float
    bertscore: float


_LIU = "Liu et al. 2024, Music Understanding LLaMA"
_MA = "Ma et al. 2025, CMI-Bench"

LEGACY = (
    Published("MusicQA", "LTU", _LIU, 24.2, 27.4, 32.6, 88.7),
    Published("MusicQA", "LLaMA-Adapter", _LIU, 27.3, 33.4, 41.3, 89.5),
    Published("MusicQA", "MU-LLaMA", _LIU, 30.6, 38.5, 46.6, 90.1),
    Published("MusicCaps", "MusiLingo-long", _MA, 21.50, 22.49, 30.29, 85.75),
    Published("Song Describer", "MusiLingo-long", _MA, 8.14, 14.32, 30.15, 85.28),
)
# Accuracy of multiple choice; guessing among four gives 25.
MUCHOMUSIC = {
    "MusiLingo": 21.1,
    "MU-LLaMA": 32.4,
    "SALMONN": 41.8,
    "Qwen-Audio": 51.4,
}
MUCHOMUSIC_SOURCE = "Weck et al. 2024, MuChoMusic"
