"""The two styles in which the authors' programs ask a release."""

from dataclasses import replace

import pytest
from helpers import tiny_model as tiny
from helpers.small_run import load_config

from musilingo_jax.answering import released
from musilingo_jax.answering.prompts import AUDIO, encode
from musilingo_jax.answering.usage import Usage
from musilingo_jax.runtime.errors import UserError

SYSTEM = (
    "Give the following music: <Audio>AudioContent</Audio>. You will be able to see "
    "the music once I provide it to you. Please answer my questions."
)


def spelled(style: str) -> str:
    """The text of a prompt about a song, with its audio as ♪."""
    before, after = released.STYLES[style].prompt.pieces
    return f"{before}♪{after}".format("q")


def test_the_texts_are_those_of_the_authors():
    assert spelled("evaluation") == "###Human: <Audio>♪</Audio> q ###Assistant: "
    assert spelled("demo") == (
        f"{SYSTEM}###Human: <Audio>♪</Audio>###Human: q###Assistant:"
    )


def test_the_song_stands_between_two_pieces():
    """As the demo tokenises them: each alone, the start token before the first."""
    tokenizer = tiny.tokenizer()
    prompt = released.STYLES["demo"].prompt
    example = encode(tokenizer, prompt, "Why?", None, 3)
    before, after = spelled("demo").replace("q###A", "Why?###A").split("♪")
    assert example.tokens == [
        tokenizer.start,
        *tokenizer.encode(before),
        *[0] * 3,
        *tokenizer.encode(after),
    ]
    assert AUDIO not in before + after


def test_decoding_is_that_of_the_authors():
    evaluation, demo = (released.STYLES[name].generate for name in released.STYLES)
    assert (evaluation.temperature, evaluation.top_p, evaluation.top_k) == (
        0.1,
        0.5,
        50,
    )
    assert demo == replace(
        evaluation, temperature=1.0, top_p=0.9, stopping="first_beam"
    )


def test_a_config_names_the_style():
    get_config = load_config("musilingo").get_config
    config = get_config("owner/model,demo")
    assert config.model.pretrained == "owner/model"
    assert config.generate.stopping == "first_beam"
    assert config.stage2.prompt.template.startswith("Give the following music")
    for arg in ("", "owner/model,evaluation"):
        config = get_config(arg)
        assert config.generate.temperature == 0.1
        assert config.stage2.prompt.template == "###Human: {} ###Assistant: "
    assert get_config("a,b").model.pretrained == "a,b"


def test_a_style_is_for_a_release_only():
    with pytest.raises(UserError, match="a style .'demo'. is for released MusiLingo"):
        Usage.of("musilingo-tiny", None, "demo")


def test_an_unknown_style_is_refused():
    with pytest.raises(
        UserError, match="'chat' is not a style: choose evaluation or demo"
    ):
        released.style_of("chat")


def test_a_release_may_name_another_template_which_the_demo_does_not_read():
    named = {"prompt_template": "USER: {} ASSISTANT:"}
    assert released.prompt_of("evaluation", named).template == "USER: {} ASSISTANT:"
    assert released.prompt_of("demo", named) == released.STYLES["demo"].prompt
    with pytest.raises(UserError, match="prompt_template = 5 in config.json"):
        released.prompt_of("evaluation", {"prompt_template": 5})
