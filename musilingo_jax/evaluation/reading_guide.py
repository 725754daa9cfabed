"""How scores, controls and intervals of a report come about, for its readers."""

from musilingo_jax.evaluation.metrics import facts, flips
from musilingo_jax.evaluation.metrics.intervals import FEWEST_CLIPS

READING_RULES = {
    "facts": "An answer is right if it names the true value and no other value of the "
    "attribute (all values in the corpus; at word boundaries, longer values first; "
    "values with a capital letter as written). One that names none or several is "
    "wrong, and counted as unanswered. Some attributes have a protocol of their own: "
    + "; ".join(f"{name}: {rule}" for name, rule in facts.STANDARD.items())
    + ".",
    "answers shuffled": "The same answers, each given for another clip, among rows of "
    "one attribute or of the very same question.",
    "shuffled audio": "The same questions, asked anew with the music of another clip "
    "(a random circle of all clips).",
    "silence": "The same questions, with zeros where the clip's features were.",
    "no audio": "The same questions, with nothing in the place of the music.",
    "constant answer": "One answer per attribute or question: of the training answers "
    "with the most frequent value, the one most like the others. Where there is no "
    "training split, one of the references to other clips, which flatters it.",
    "intervals": "95 %. Right-or-wrong scores: Wilson, where answers about one clip "
    "count for less than as many clips, as far as they are right or wrong together (an "
    "effective sample size: Korn & Graubard 1998, Dean & Pagano 2015). All others, and "
    "all differences: paired bootstrap over clips; – where there are fewer than "
    f"{FEWEST_CLIPS} clips or all resamples are the same.",
    "✗": "A row that is not above every one of its controls. It is above one if a "
    "paired sign-flip test over clips says so (own and control exchanged clip by clip, "
    f"one-sided p ≤ {flips.LEVEL}: `p_above` in report.json) and the interval of the "
    "difference, if there is one, lies above 0.",
    "legacy": "The arithmetic with which MU-LLaMA, MusiLingo and CMI-Bench report: "
    "BLEU of characters (bleu: 1 to 4 of them; bleu4: 4 alone), METEOR, ROUGE-L "
    "recall, BERTScore recall of roberta-large. Only to compare with their tables.",
    "honest": "BLEU of words over the whole corpus (sacrebleu), ROUGE-L F1 on stems in "
    "any script, METEOR (the same as legacy), BERTScore F1. They mostly see wording "
    "and barely the music: read the facts first.",
}
