"""Scores of wording, against the libraries that define them and by hand."""

import json
import sys

import numpy as np
import pytest
import sacrebleu
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import sentence_bleu
from nltk.translate.meteor_score import meteor_score
from rouge_score import rouge_scorer
from scipy import stats

from musilingo_jax.evaluation.metrics import (
    bertscore,
    bleu,
    diversity,
    intervals,
    rouge,
)
from musilingo_jax.evaluation.metrics import wordnet as wordnet_module
from musilingo_jax.evaluation.metrics.meteor import meteor
from musilingo_jax.evaluation.metrics.wording import Wording, WordingModels
from musilingo_jax.evaluation.metrics.wordnet import Absent
from musilingo_jax.evaluation.metrics.words import stems, words

PAIRS = [
    ("A slow piano plays a sad melody.", "A sad, slow piano melody in A minor."),
    ("This is a fast rock song with loud guitars.", "Loud guitars drive this rock."),
    ("The tempo is 120 BPM", "It is played at 120 beats per minute."),
    ("xyz", "A calm piano piece."),
    ("", "A calm piano piece."),
    ("🎹🎶", "Piano music 🎹"),
    ("An auto passes.", "A car passes."),
    ("Relaxed pianists playing relaxingly", "a relaxing pianist plays_calmly"),
]


def write_wordnet(folder):
    """A dictionary with a single meaning: a car is an auto."""
    folder.mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"index.{part}", f"data.{part}", f"{part}.exc"):
            (folder / name).write_text("")
    (folder / "index.noun").write_text(
        "auto n 1 0 1 0 00000010\ncar n 1 0 1 0 00000010\n"
    )
    # The number of a meaning is the byte where its line begins.
    (folder / "data.noun").write_text(
        "  licence\n00000010 06 n 02 car 0 auto 0 000 | a vehicle  \n"
    )
    return folder


class Missing:
    """nltk's WordNet when it was not downloaded."""

    def ensure_loaded(self):
        raise LookupError


@pytest.fixture
def synonyms(tmp_path, monkeypatch):
    """A small WordNet in the format of Debian's package."""
    monkeypatch.setattr(wordnet_module, "wordnet", Missing())
    monkeypatch.setattr(wordnet_module.nltk.data, "path", [])
    monkeypatch.setenv("WNSEARCHDIR", str(write_wordnet(tmp_path / "wordnet")))
    return wordnet_module.find.__wrapped__()


@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_legacy_scores_are_those_of_the_published_calls(answer, reference, synonyms):
    """To the last digit, as MU-LLaMA's script calls nltk and rouge_score."""
    equal, fours = bleu.published(answer, reference)
    assert equal == sentence_bleu([reference], answer)
    assert fours == sentence_bleu([reference], answer, weights=(0.0, 0.0, 0.0, 1.0))
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    recall = scorer.score(reference, answer)["rougeL"].recall
    assert rouge.published_recall(answer, reference) == recall
    split = wordpunct_tokenize(reference), wordpunct_tokenize(answer)
    expected = meteor_score([split[0]], split[1], wordnet=synonyms)
    assert meteor(answer, reference, synonyms) == expected


def test_legacy_digits(synonyms):
    """What the script would print for these pairs: means over items."""
    models = WordingModels(synonyms, None, {}, {})
    answers, references = zip(*PAIRS, strict=True)
    scores = Wording(models).score(answers, references, lambda rows: None)
    printed = {name: f"{scores[f'legacy.{name}'].mean():.4f}" for name in DIGITS}
    assert printed == DIGITS


DIGITS = {"bleu": "0.2732", "bleu4": "0.2038", "meteor": "0.2990", "rouge_l": "0.2604"}


def test_meteor_knows_synonyms_of_wordnets_own_files(synonyms):
    assert synonyms.source == "WordNet's own files"
    # All three words match in one chunk, one of them as a synonym.
    assert meteor("the auto passes", "the car passes", synonyms) == (
        pytest.approx(1 - 0.5 * (1 / 3) ** 3)
    )


def test_meteor_without_wordnet_is_absent_and_not_another_number(tmp_path, monkeypatch):
    monkeypatch.setattr(wordnet_module, "wordnet", Missing())
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.setattr(wordnet_module, "find", wordnet_module.find.__wrapped__)
    models = WordingModels.load(None, None)
    assert "wordnet-base" in models.absent["legacy.meteor"]
    assert "no model was given" in models.absent["honest.bertscore"]
    scores = Wording(models).score(["a"], ["a"], lambda rows: None)
    assert "legacy.meteor" not in scores and scores["legacy.rouge_l"][0] == 1


def test_common_length_is_the_longest_common_subsequence():
    def table(first, second):
        row = [0] * (len(second) + 1)
        for a in first:
            above, row = row, [0]
            for j, b in enumerate(second):
                row.append(above[j] + 1 if a == b else max(above[j + 1], row[j]))
        return row[-1]

    generator = np.random.default_rng(0)
    for _ in range(50):
        first, second = (
            [str(w) for w in generator.integers(0, 6, generator.integers(0, 30))]
            for _ in range(2)
        )
        assert rouge.common_length(first, second) == table(first, second)
    assert rouge.common_length(("slow", "piano", "tunes"), ("a", "slow", "piano")) == 2


def test_honest_rouge_is_the_librarys_on_plain_english_and_sees_other_scripts():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for answer, reference in PAIRS:
        expected = scorer.score(reference, answer)["rougeL"].fmeasure
        assert rouge.rouge_l(answer, reference) == pytest.approx(expected, abs=1e-12)
    assert rouge.published_recall("静かなピアノ", "静かなピアノ") == 0
    assert rouge.rouge_l("静かなピアノ", "静かなピアノ") == 1
    shared = rouge.rouge_l("Un café tranquille", "un café bruyant")
    assert shared == pytest.approx(2 / 3)


def test_words_of_several_scripts():
    assert words("A café, 120 BPM! don't_stop 🎹") == (
        *("a", "café", "120", "bpm"),
        *("don", "t", "stop"),
    )
    assert words("静かなピアノ") == tuple("静かなピアノ")
    assert words("हिन्दी गीत") == ("हिन्दी", "गीत")
    assert stems("Pianos are playing") == ("piano", "are", "play")


def test_corpus_bleu_of_words_is_sacrebleus():
    answers, references = (list(texts) for texts in zip(*PAIRS, strict=True))
    counts = np.sum([bleu.statistics(*pair) for pair in PAIRS], axis=0)
    found = bleu.corpus_bleu(counts)
    for order in (1, 2, 3, 4):
        library = sacrebleu.BLEU(max_ngram_order=order, smooth_method="none")
        expected = library.corpus_score(answers, [references]).score / 100
        assert found[f"bleu{order}"] == pytest.approx(expected, abs=1e-12)
    assert found["bleu1"] > found["bleu2"] > 0
    assert bleu.corpus_bleu(np.zeros(10, np.int64))["bleu1"] == 0
    # Many corpora at once, one of them with answers that are too short.
    both = bleu.corpus_bleu(np.stack([counts, bleu.statistics("A slow", "A slow jig")]))
    assert both["bleu2"][0] == found["bleu2"]
    assert both["bleu2"][1] == pytest.approx(np.exp(1 - 3 / 2))
    assert both["bleu3"][1] == 0


def test_most_typical_answer_shares_most_with_the_others():
    answers = ["a jazz trio", "drums", "a slow jazz trio", "a slow jazz duo"]
    assert rouge.most_typical(answers) == "a slow jazz trio"
    assert rouge.most_typical(["only"]) == "only"


def test_diversity_by_hand():
    # Words: a b a | a c. Pairs: ab ba | ac.
    found = diversity.of(["A b a.", "a c!"])
    assert found == {"distinct1": 3 / 5, "distinct2": 1.0, "length": 2.5}
    assert diversity.of(["", "🎹"]) == {
        "distinct1": None,
        "distinct2": None,
        "length": 0.0,
    }


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A random RoBERTa with a byte-level tokenizer."""
    pytest.importorskip("bert_score")
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    folder = tmp_path_factory.mktemp("bert") / "small-roberta"
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces += sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: place for place, piece in enumerate(pieces)}
    transformers.RobertaTokenizerFast(vocab=vocab, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
    )
    transformers.RobertaModel(config).save_pretrained(folder)
    return folder


def test_bertscore_by_its_library_with_a_local_model(roberta):
    from bert_score import BERTScorer

    model = bertscore.BertScore(str(roberta), 2)
    assert model.name == "small-roberta, layer 2" and not model.published
    answers = ["a calm piano", "loud", "", "🎹"]
    references = ["a calm guitar", "a loud drum", "a song", " "]
    done = []
    recall, f1 = model.score(answers, references, done.append)
    library = BERTScorer(model_type=str(roberta), num_layers=2)
    library._tokenizer.model_max_length = 128
    _, expected, mean = library.score(answers[:2], references[:2])
    np.testing.assert_allclose(recall, [*expected, 0, 0], atol=1e-5)
    np.testing.assert_allclose(f1, [*mean, 0, 0], atol=1e-5)
    assert sum(done) == 4
    # Longer than the model's positions.
    _, f1 = model.score(["word " * 5000], ["word " * 5000], done.append)
    assert f1[0] == pytest.approx(1, abs=1e-4)


def test_only_roberta_large_makes_the_published_bertscore(roberta):
    models = WordingModels.load(str(roberta), 2)
    assert "roberta-large" in models.absent["legacy.bertscore"]
    assert "honest.bertscore" not in models.absent
    named = roberta.with_name("roberta-large")
    named.mkdir(exist_ok=True)
    shape = {"model_type": "roberta", "num_hidden_layers": 24}
    (named / "config.json").write_text(json.dumps(shape))
    assert bertscore._is_published(str(named), 17, shape)
    assert not bertscore._is_published(str(named), 16, shape)
    assert not bertscore._is_published(str(roberta), 17, shape)


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        ("no/such-model", None, "--bertscore_layer"),
        ("/nonexistent/roberta-large", 3, "cannot be loaded"),
    ],
)
def test_a_model_of_bertscore_that_is_not_there(model, layer, message, monkeypatch):
    pytest.importorskip("bert_score")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Absent, match=message):
        bertscore.BertScore(model, layer)


def test_bertscore_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(Absent, match=r"pip install 'musilingo-jax\[eval\]'"):
        bertscore.BertScore("roberta-large", None)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (3, 10), (10, 10), (57, 80)])
def test_wilson_interval_agrees_with_scipy(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(method="wilson")
    interval = intervals.wilson_interval(correct / total, total)
    np.testing.assert_allclose(interval, (expected.low, expected.high), atol=1e-6)


def clips_of(sizes):
    return [str(clip) for clip, size in enumerate(sizes) for _ in range(size)]


def test_effective_size_by_hand():
    right = np.array([1, 1, 0, 1, 0], bool)
    assert intervals.effective_size(right, clips_of([1] * 5)) == pytest.approx(5)
    # All answers of a clip alike: as many as clips; fewer where one outweighs others.
    alike = np.repeat([True, False, True], 4)
    assert intervals.effective_size(alike, clips_of([4] * 3)) == pytest.approx(3)
    every = np.ones(12, bool)
    assert intervals.effective_size(every, clips_of([4] * 3)) == pytest.approx(3)
    assert intervals.effective_size(every, clips_of([10, 1, 1])) == 144 / 102
    assert intervals.effective_size(right, ["a"] * 5) == 1
    # All rates alike: the variance over clips is 0, which proves nothing.
    half = np.array([1, 0] * 6, bool)
    assert intervals.effective_size(half, clips_of([4] * 3)) == pytest.approx(3)
    # Rates 1, 1/2, 1/2, 0: the variance by clips is 4/3 · (4 + 0 + 0 + 4) / 16², that
    # of 16 free answers 0.25 / 15, and Student's t has 15 and 3 degrees of freedom.
    some = np.repeat([1, 1, 0, 1, 0, 0], [4, 2, 2, 2, 2, 4]).astype(bool)
    effect = (4 / 3 * 8 / 16**2) / (0.25 / 15)
    shrunk = 16 / effect * (2.131450 / 3.182446) ** 2
    assert shrunk < 4  # So few clips that they count for no more than their number.
    assert intervals.effective_size(some, clips_of([4] * 4)) == pytest.approx(4)
    twice = np.tile(some, 5)
    effect = (20 / 19 * 40 / 80**2) / (0.25 / 79)
    expected = 80 / effect * (1.990450 / 2.093024) ** 2
    found = intervals.effective_size(twice, clips_of([4] * 20))
    assert found == pytest.approx(expected, rel=1e-5) and 20 < found < 80


def test_intervals_hold_the_truth_where_answers_share_clips():
    """In about 95 % of 400 tries; without regard to clips in about 60 %."""
    generator = np.random.default_rng(0)
    clips = clips_of([20] * 6)
    held = {"clips": 0, "blind": 0}
    for _ in range(400):
        right = generator.random((6, 20)) < generator.beta(2, 1, (6, 1))
        size = intervals.effective_size(right.ravel(), clips)
        for how, count in (("clips", size), ("blind", 120)):
            low, high = intervals.wilson_interval(right.mean(), count)
            held[how] += low <= 2 / 3 <= high
    assert held["clips"] / 400 >= 0.92 and held["blind"] / 400 < 0.7


def bootstrap(scores, clips, *, resamples, seed):
    """The interval of a mean."""
    columns = np.stack([scores, np.ones_like(scores)], axis=1)
    sums = intervals.bootstrap_sums(columns, clips, resamples=resamples, seed=seed)
    return intervals.percentile_interval(sums[:, 0] / sums[:, 1], len(set(clips)))


def test_bootstrap_resamples_clips_and_is_seeded():
    generator = np.random.default_rng(0)
    scores = np.repeat(generator.normal(0.5, 1.0, 50), 4)
    clips = [str(i // 4) for i in range(200)]
    low, high = bootstrap(scores, clips, resamples=4000, seed=1)
    # Four equal rows per clip are one observation: 50 of them, not 200.
    error = intervals.Z_95 * np.std(scores[::4]) / np.sqrt(50)
    np.testing.assert_allclose(
        (low, high), (scores.mean() - error, scores.mean() + error), atol=0.05
    )
    assert bootstrap(scores, clips, resamples=4000, seed=1) == (low, high)
    assert bootstrap(scores, clips, resamples=4000, seed=2) != (low, high)


def test_bootstrap_weighs_clips_by_their_rows():
    # Three rows of clip 0 weigh as much as one row each of clips 1 to 3.
    clips = clips_of([3, 1, 1, 1, 1, 1, 1])
    scores = np.array([1.0] * 3 + [0.0] * 6)
    columns = np.stack([scores, np.ones_like(scores)], axis=1)
    sums = intervals.bootstrap_sums(columns, clips, resamples=500, seed=0)
    drawn = np.unique(sums[:, 0] / 3)
    assert set(drawn) <= set(range(8)) and len(drawn) > 3
    np.testing.assert_array_equal(sums[:, 1], 7 + 2 * sums[:, 0] / 3)


def test_no_bootstrap_interval_of_few_clips_or_without_width():
    few = bootstrap(np.array([1.0, 0, 1, 0, 1]), list("abcde"), resamples=99, seed=0)
    assert few == "fewer than 6 clips"
    alike = bootstrap(np.full(8, 5 / 6), list("abcdefgh"), resamples=99, seed=0)
    assert alike == "all resamples give the same"
