"""How the scores, controls and intervals of a report are computed, for its readers."""

from musilingo_jax.evaluation.metrics import facts, flips
from musilingo_jax.evaluation.metrics.intervals import FEWEST_CLIPS

READING_RULES = {
    "facts": "An answer is right if it states the true value of the attribute and no "
    "other value that the corpus has for it. Upper and lower case, accents, and "
    "hyphens, spaces or nothing between the parts of a value make no difference; "
    "longer values are looked for first; what the answer denies (“not rock”) is not "
    "stated. An answer that states no value counts as unanswered, and one that states "
    "several as wrong. Rows whose name ends in “_published” are the rules of published "
    "tables, for comparison with them. Some attributes have a protocol of their own: "
    + "; ".join(f"{name}: {rule}" for name, rule in facts.STANDARD.items())
    + ".",
    "shuffled answers": "The same answers, each given for another clip, among "
    "questions about the same attribute or with the same words.",
    "shuffled audio": "The same questions, asked with the music of another clip (the "
    "next in a random circle of all clips).",
    "silence": "The same questions, asked with zeros in place of the clip's features.",
    "no audio": "The same questions, asked without any music.",
    "constant answer": "One answer for each attribute or question: of the training "
    "answers with the most frequent value, the one most similar to the others. Without "
    "a training split, one of the references to other clips, which makes this control "
    "stronger than it should be.",
    "intervals": "95 %. For right-or-wrong scores, Wilson's interval with an effective "
    "sample size, because answers about one clip tend to be right or wrong together "
    "(Korn & Graubard 1998, Dean & Pagano 2015). For all other scores and for all "
    "differences, a paired bootstrap over clips; – if there are fewer than "
    f"{FEWEST_CLIPS} clips or all resamples give the same.",
    "✗": "The score is not above every control. It is above a control if a paired "
    "sign-flip test over clips says so (own and control exchanged clip by clip, "
    f"one-sided p ≤ {flips.LEVEL}, `p_above` in report.json) and the interval of the "
    "difference, if there is one, is above 0.",
    "legacy": "The arithmetic of the numbers that MU-LLaMA, MusiLingo and CMI-Bench "
    "report: BLEU of characters (bleu: of 1 to 4 characters; bleu4: of 4 alone), "
    "METEOR, ROUGE-L recall, BERTScore recall of roberta-large. Use it only to compare "
    "with their tables.",
    "honest": "BLEU of words over the whole corpus (sacrebleu), ROUGE-L F1 of stems in "
    "any script, METEOR (the same as legacy), BERTScore F1. These mostly measure "
    "wording and hardly the music: read the facts first.",
    "distinct-1, distinct-2": "Different words, and different pairs of adjacent words, "
    "over all of them in all answers. Both fall with the number of answers: compare "
    "them with those of the references.",
}
