"""What the language model learns from: its tokens, its texts and its hints."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from helpers.small_run import load_config

from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.recipes import language, texts
from musilingo_jax.recipes.hints import hints, value_embeddings, value_tokens
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section
from musilingo_jax.training.stage_config import StageConfig


@pytest.fixture(scope="module")
def settings():
    return load_config("tiny_from_scratch").get_config("quick")


@pytest.fixture(scope="module")
def recipe(settings):
    numbers = settings.language.recipe.to_dict() | {"pieces": 40, "tokens": 400}
    return read_section(language.LanguageRecipe, numbers, "config.language.recipe")


@pytest.fixture(scope="module")
def found(recipe):
    return texts.texts(pieces=recipe.pieces, seed=recipe.seed)


@pytest.fixture(scope="module")
def tokenizer(recipe, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return texts.train_tokenizer(found, folder, tokens=recipe.tokens)


@pytest.fixture(scope="module")
def config(settings, tokenizer):
    small = {"vocab_size": tokenizer.size, "hidden_size": 16, "num_hidden_layers": 1}
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


@pytest.mark.usefixtures("quick_to_compile")
def test_clean_hints_are_the_words_of_the_kept_attributes(tokenizer, config):
    llama = Llama(config, rngs=nnx.Rngs(0))
    table = value_tokens(tokenizer)
    words = np.asarray(value_embeddings(llama, table))
    # "A minor" is the sum of its words' embeddings.
    key = ATTRIBUTES["key"].index("A minor")
    tokens = tokenizer.encode("A minor")
    place = list(ATTRIBUTES).index("key")
    expected = np.asarray(llama.embed(jnp.array([tokens])))[0].sum(0)
    np.testing.assert_allclose(words[place, key], expected, atol=1e-5)

    make = functools.partial(
        hints,
        llama,
        table,
        windows=3,
        keep_asked=1.0,
        keep_others=0.0,
        thin=0.0,
        blur=0.0,
        noise=0.0,
        key=jax.random.key(1),
    )
    vectors = jax.jit(make)(
        np.array([[0, 1, 2, 0, key, 1]]),
        np.array([[True, False, False, False, True, False]]),
    )
    only_asked = words[0, 0] + words[place, key]
    np.testing.assert_allclose(vectors[0], np.tile(only_asked, (3, 1)), atol=1e-5)


def test_texts_that_fit_no_length_are_counted(found, pools):
    short, long, left_out = pools
    assert left_out > 0
    assert len(short.tokens) + len(long.tokens) + left_out == len(found)
    assert short.lengths.max() <= 40 < long.lengths.min() <= 60
    # Attributes are in their order, the text's own and those that it is about.
    assert short.values.shape == short.asked.shape == (len(short.tokens), 6)
    assert set(short.asked.sum(1)) == {1, 6}  # A question's one, or a caption's all.
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
