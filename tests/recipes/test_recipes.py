"""The recipe of the embedded model: its closed form, its hints, its order, its log."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx

from configs import tiny_from_scratch
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora import synthetic
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.recipes import encoder, language, start, texts, tiny
from musilingo_jax.runtime.errors import UserError


def test_ridge_finds_the_linear_map_that_made_the_goals():
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, 3.0, (400, 6)).astype(np.float32)
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    goals = features @ kernel + bias
    adapter = start.ridge(features, goals, shrinkage=1e-9)
    np.testing.assert_allclose(adapter(features), goals, atol=1e-4)
    # With all the weight on the penalty, only the mean is left.
    shrunk = start.ridge(features, goals, shrinkage=1e9)
    np.testing.assert_allclose(shrunk(features)[7], goals.mean(0), atol=1e-4)


def test_an_epoch_visits_every_clip_once_in_an_order_of_its_own():
    def epoch(number):
        steps = range(number * 5, number * 5 + 5)
        return np.concatenate(
            [encoder.rows_of_step(s, clips=20, batch_size=4, seed=1) for s in steps]
        )

    assert sorted(epoch(0)) == list(range(20)) == sorted(epoch(1))
    assert epoch(0).tolist() != epoch(1).tolist()
    np.testing.assert_array_equal(
        encoder.rows_of_step(7, clips=20, batch_size=4, seed=1),
        encoder.rows_of_step(7, clips=20, batch_size=4, seed=1),
    )


def test_a_few_steps_teach_the_encoder_its_clips(tmp_path):
    settings = tiny_from_scratch.get_config("quick").encoder
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (8, 8, 8, 8),
        "num_conv_pos_embedding_groups": 4,
    }
    config = MertConfig.from_dict(settings.model.to_dict() | small)
    recipe = encoder.EncoderRecipe(
        **settings.recipe.to_dict()
        | {"steps": 48, "batch_size": 4, "learning_rate": 1e-2, "window_frames": 8}
    )
    seconds = 1.0
    folder = tmp_path / "set"
    folder.mkdir()
    pieces = [
        synthetic.compose(np.random.default_rng([5, i]), duration=seconds)
        for i in range(8)
    ]
    (folder / "set.json").write_text(
        json.dumps({"clips": 8, "seed": 5, "duration": seconds})
    )
    # Noise that is different for each clip: enough to tell eight clips apart.
    waveform = np.random.default_rng(0).integers(-9000, 9000, (8, 24000))
    np.save(folder / "waveform.npy", waveform.astype(np.int16))
    labels = [piece.label_indices() for piece in pieces]
    np.savez(
        folder / "labels.npz",
        **{n: np.int8([label[n] for label in labels]) for n in labels[0]},
    )
    rendered = encoder.RenderedSet(
        folder,
        frames=config.frames(24000),
        frames_per_second=config.frames_per_second,
    )
    student = encoder.train(
        config, recipe, training=rendered, held_out={}, folder=tmp_path / "saved"
    )
    found = encoder.accuracy(student, rendered, recipe)
    assert found["style"] > 0.9 and found["drums"] > 0.9
    # A finished training is not done again: the same weights come back from disk.
    again = encoder.train(
        config, recipe, training=rendered, held_out={}, folder=tmp_path / "saved"
    )
    for one, other in zip(
        jax.tree.leaves(student), jax.tree.leaves(again), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A tokenizer, texts and a random language model of the recipe's kind."""
    settings = tiny_from_scratch.get_config("quick")
    recipe = language.LanguageRecipe(
        **settings.language.recipe.to_dict() | {"pieces": 40, "tokens": 400}
    )
    found = texts.texts(pieces=recipe.pieces, seed=recipe.seed)
    tokenizer = texts.train_tokenizer(
        found, tmp_path_factory.mktemp("tokenizer"), tokens=recipe.tokens
    )
    config = LlamaConfig.from_dict(
        settings.language.model.to_dict()
        | {"vocab_size": tokenizer.size, "hidden_size": 16, "num_hidden_layers": 1}
    )
    return recipe, found, tokenizer, Llama(config, rngs=nnx.Rngs(0)), settings


def test_the_tokenizer_keeps_the_end_sign_apart_and_text_whole(talk):
    _, found, tokenizer, _, _ = talk
    (sign,) = tokenizer.encode("###")[1:]
    for text in found[:50]:
        tokens = tokenizer.encode(text.answer + "###")
        assert tokens[-1] == sign
        assert tokenizer.decode(tokens[:-1]) == " " + text.answer


def test_the_tokenizer_is_read_by_transformers_too(talk):
    _, found, tokenizer, _, _ = talk
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer.name)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (
        tokenizer.start,
        tokenizer.end,
    )
    for text in found[:20]:
        tokens = tokenizer.encode(text.answer)
        assert theirs.encode(text.answer, add_special_tokens=False) == tokens


def test_clean_hints_are_the_words_of_the_kept_attributes(talk):
    recipe, _, tokenizer, llama, _ = talk
    table = language.value_tokens(tokenizer)
    words = np.asarray(language.value_embeddings(llama, table))
    # "A minor" is the sum of its words' embeddings.
    key = synthetic.ATTRIBUTES["key"].index("A minor")
    tokens = tokenizer.encode("A minor")
    place = list(synthetic.ATTRIBUTES).index("key")
    expected = np.asarray(llama.embed(jnp.array([tokens])))[0].sum(0)
    np.testing.assert_allclose(words[place, key], expected, atol=1e-5)

    values = np.array([[0, 1, 2, 0, key, 1]])
    asked = np.array([[True, False, False, False, True, False]])
    clean = dataclasses.replace(recipe, thin=0.0, blur=0.0, noise=0.0, asked=1.0)
    vectors = language.hints(
        llama,
        table,
        values,
        asked,
        windows=3,
        keep=0.0,
        recipe=clean,
        key=jax.random.key(1),
    )
    only_asked = words[0, 0] + words[place, key]
    np.testing.assert_allclose(vectors[0], np.tile(only_asked, (3, 1)), atol=1e-5)


def test_texts_that_fit_no_length_are_counted(talk):
    _, found, tokenizer, _, settings = talk
    stages = settings.adapter.train
    prompt_of = {
        False: PromptConfig(**stages.stage1.prompt),
        True: PromptConfig(**stages.stage2.prompt),
    }
    short, long, left_out = texts.pools(
        found, tokenizer, prompt_of, short_length=40, long_length=60, seed=0
    )
    assert left_out > 0
    assert len(short.tokens) + len(long.tokens) + left_out == len(found)
    assert short.lengths.max() <= 40 < long.lengths.min() <= 60


def test_the_log_adds_up_interrupted_stages(tmp_path):
    log = tiny.Log(tmp_path / "log.json")
    with pytest.raises(KeyboardInterrupt), log.stage("songs"):
        raise KeyboardInterrupt
    first = log.read()["songs"]["seconds"]
    with log.stage("songs"):
        log.note("songs", {"clips": 3})
    assert log.read()["songs"]["seconds"] > first
    assert log.read()["songs"]["clips"] == 3


def test_a_missing_soundfont_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.sf2.*make soundfonts"):
        tiny.soundfonts(tmp_path, ("nowhere.sf2",))
