"""What the language model learns from: its tokens, its texts and its hints."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import transformers
from helpers.small_run import load_config

from musilingo_jax.corpora import fact_questions
from musilingo_jax.corpora.facts import FACTS, UNSURE
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.recipes import language, texts
from musilingo_jax.recipes.hints import UNKNOWN, codes, hints
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section
from musilingo_jax.training.stage_config import StageConfig


@pytest.fixture(scope="module")
def settings():
    return load_config("tiny_from_scratch").get_config("quick")


@pytest.fixture(scope="module")
def recipe(settings):
    changed = {"pieces": 40, "recordings": 20, "tokens": 400}
    numbers = settings.language.recipe.to_dict() | changed
    return read_section(language.LanguageRecipe, numbers, "config.language.recipe")


@pytest.fixture(scope="module")
def found(recipe):
    return texts.texts(
        pieces=recipe.pieces, recordings=recipe.recordings, seed=recipe.seed
    )


@pytest.fixture(scope="module")
def tokenizer(recipe, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return texts.train_tokenizer(found, folder, tokens=recipe.tokens)


@pytest.fixture(scope="module")
def config(settings, tokenizer):
    small = {"vocab_size": tokenizer.size, "hidden_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaConfig.from_dict(settings.language.model.to_dict() | small)


@pytest.fixture(scope="module")
def pools(settings, found, tokenizer):
    captions, questions = (
        StageConfig.from_config(settings.adapter.train, stage).prompt
        for stage in ("stage1", "stage2")
    )
    return texts.pools(
        found,
        tokenizer,
        {False: captions, True: questions},
        short_length=40,
        long_length=60,
        seed=0,
    )


def test_the_tokenizer_keeps_the_end_sign_apart_and_text_whole(found, tokenizer):
    (sign,) = tokenizer.encode("###")[1:]
    for text in found[:50]:
        tokens = tokenizer.encode(text.answer + "###")
        assert tokens[-1] == sign
        assert tokenizer.decode(tokens[:-1]) == " " + text.answer


def test_the_tokenizer_is_read_by_transformers_too(found, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer.name)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (
        tokenizer.start,
        tokenizer.end,
    )
    for text in found[:20]:
        tokens = tokenizer.encode(text.answer)
        assert theirs.encode(text.answer, add_special_tokens=False) == tokens


def test_codes_are_orthogonal_and_the_same_every_time():
    table = codes(160)
    assert table.shape == (len(FACTS), max(map(len, FACTS.values())), 160)
    np.testing.assert_array_equal(table, codes(160))
    drawn = table.reshape(-1, 160)
    drawn = drawn[np.abs(drawn).sum(1) > 0]
    assert len(drawn) == sum(map(len, FACTS.values()))
    np.testing.assert_allclose(drawn @ drawn.T, 160 * np.eye(len(drawn)), atol=1e-3)
    # Of a model that is too narrow for that, they are different at least.
    narrow = codes(32).reshape(-1, 32)
    narrow = narrow[np.abs(narrow).sum(1) > 0]
    assert len(np.unique(narrow, axis=0)) == len(drawn)


@pytest.mark.usefixtures("quick_to_compile")
def test_clean_hints_are_the_codes_of_what_is_known_and_kept():
    width, names = 32, list(FACTS)
    table = codes(width)
    make = functools.partial(
        hints,
        width=width,
        windows=3,
        keep_asked=1.0,
        keep_others=0.0,
        thin=0.0,
        blur=0.0,
        noise=0.0,
        key=jax.random.key(1),
    )
    values = np.full((1, len(FACTS)), UNKNOWN)
    asked = np.zeros((1, len(FACTS)), bool)
    style, key, drums = (names.index(name) for name in ("style", "key", "drums"))
    values[0, [style, key]] = 2, 21
    # The style is not asked about, and of the drums nothing is known.
    asked[0, [key, drums]] = True
    vectors = jax.jit(make)(values, asked)
    np.testing.assert_allclose(vectors[0], np.tile(table[key, 21], (3, 1)), atol=1e-5)


def test_what_is_not_known_of_a_recording_is_asked_and_cannot_be_told(found):
    unsure = [text for text in found if text.answer == f"{UNSURE}."]
    assert unsure and all(text.labels["sound"] == "music" for text in unsure)
    for text in unsure:
        (fact,) = text.asked
        assert fact not in text.labels
    assert any(text.asked == ("lead",) for text in unsure)


def test_a_third_at_most_of_what_is_asked_of_recordings_is_unknown():
    rng = np.random.default_rng(1)
    told = [
        (fact, fact_questions.short(known, fact, rng)[2])
        for known in (texts.made_up(rng) for _ in range(300))
        if known["sound"] == "music"
        for fact in fact_questions.OF_RECORDINGS
    ]
    for fact in fact_questions.OF_RECORDINGS:
        values = [value for name, value in told if name == fact]
        assert np.mean([value is None for value in values]) <= 1 / 3


def test_texts_that_fit_no_length_are_counted(found, pools):
    short, long, left_out = pools
    assert left_out > 0
    assert len(short.tokens) + len(long.tokens) + left_out == len(found)
    assert short.lengths.max() <= 40 < long.lengths.min() <= 60
    # Facts are in their order, the text's own and those that it is about.
    assert short.values.shape == short.asked.shape == (len(short.tokens), len(FACTS))
    assert {1, len(ATTRIBUTES)} <= set(short.asked.sum(1))  # A question's, a caption's.
    assert (short.values == UNKNOWN).any()
    # What is learnt is the answer, to its end, and nothing before it.
    for row in range(20):
        places = short.targets[row][short.targets[row] >= 0]
        assert places[-1] == short.lengths[row] - 1
        np.testing.assert_array_equal(np.diff(places), 1)
        assert places[0] > short.audio_slot[row].argmax()
    rows = short.rows(np.array([3, 0, 3]))
    for row, field in zip(rows, dataclasses.fields(short), strict=True):
        np.testing.assert_array_equal(row, getattr(short, field.name)[[3, 0, 3]])


@pytest.mark.parametrize("share, name", [(0.5, "long_length"), (1.0, "short_length")])
def test_a_length_without_texts_is_refused(
    tmp_path, recipe, tokenizer, config, pools, share, name
):
    nothing = dataclasses.replace(
        pools[0],
        **{f.name: getattr(pools[0], f.name)[:0] for f in dataclasses.fields(pools[0])},
    )
    lengths = {"short": pools[0], "long": pools[1]} | {name[:-7]: nothing}
    with pytest.raises(UserError, match=rf"recipe\.{name} = \d+: no text has that"):
        language.train(
            config,
            dataclasses.replace(recipe, short_share=share),
            tokenizer=tokenizer,
            folder=tmp_path,
            **lengths,
        )
