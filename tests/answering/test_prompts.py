"""Where the audio is, which tokens are targets, and that a cut keeps the end sign."""

import dataclasses

import pytest
from helpers.small_run import small_tokenizer

from musilingo_jax.answering.prompts import MODEL_END, PromptConfig, encode
from musilingo_jax.runtime.errors import UserError

CAPTION = PromptConfig(template="", instruction="", end_sign="\n", max_answer_tokens=32)
CHAT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=40,
)


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def test_caption_is_start_audio_answer_end_sign(tokenizer):
    example = encode(tokenizer, CAPTION, "", "A piano.", windows=3)
    answer = tokenizer.encode("A piano.\n")
    assert example.tokens == [tokenizer.start, 0, 0, 0, *answer]
    assert example.audio_slot == [-1, 0, 1, 2] + [-1] * len(answer)
    assert example.target_mask == [False] * 4 + [True] * len(answer)
    assert not example.cut


def test_pieces_of_a_question_are_tokenised_separately(tokenizer):
    example = encode(tokenizer, CHAT, "How fast?", "Slow.", windows=2)
    before = tokenizer.encode("###Human: <Audio>")
    after = tokenizer.encode("</Audio> How fast? ###Assistant: ")
    answer = tokenizer.encode("Slow.###")
    assert example.tokens == [tokenizer.start, *before, 0, 0, *after, *answer]
    assert example.audio_slot.index(0) == 1 + len(before)
    assert sum(example.target_mask) == len(answer)
    assert all(example.target_mask[-len(answer) :])


def test_without_answer_there_is_only_the_prompt(tokenizer):
    asked = encode(tokenizer, CHAT, "How fast?", None, windows=2)
    whole = encode(tokenizer, CHAT, "How fast?", "Slow.", windows=2)
    assert asked.tokens == whole.tokens[: len(asked.tokens)]
    assert not any(asked.target_mask)
    assert not any(whole.target_mask[: len(asked.tokens)])


@pytest.mark.parametrize("limit", range(4, 24))
@pytest.mark.parametrize("prompt", [CAPTION, CHAT])
def test_cut_answer_keeps_its_end_sign(tokenizer, prompt, limit):
    prompt = dataclasses.replace(prompt, max_answer_tokens=limit)
    answer = "It is a calm piano piece, slow and quiet, with many words to say."
    example = encode(tokenizer, prompt, "What?", answer, windows=1)
    pairs = zip(example.tokens, example.target_mask, strict=True)
    targets = [token for token, is_target in pairs if is_target]
    assert example.cut
    assert len(targets) == limit
    text = tokenizer.decode(targets)
    assert text.endswith(prompt.end_sign)
    assert answer.startswith(text.removesuffix(prompt.end_sign).strip()[:-1])


def test_answer_that_just_fits_is_whole(tokenizer):
    fits = len(tokenizer.encode("Slow and quiet.###"))
    prompt = dataclasses.replace(CHAT, max_answer_tokens=fits)
    assert not encode(tokenizer, prompt, "What?", "Slow and quiet.", windows=1).cut


def test_marks_in_the_question_are_only_text(tokenizer):
    question = "What is {} or <AudioHere> or {0}?"
    example = encode(tokenizer, CHAT, question, "Slow.", windows=2)
    assert question in tokenizer.decode(example.tokens)
    assert sum(slot >= 0 for slot in example.audio_slot) == 2


def test_end_sign_longer_than_the_limit_is_refused(tokenizer):
    prompt = dataclasses.replace(CHAT, end_sign="!#!#!#!#!#", max_answer_tokens=3)
    with pytest.raises(UserError, match="max_answer_tokens is 3"):
        encode(tokenizer, prompt, "What?", "Slow.", windows=1)


def test_tokenizer_without_start_is_refused(tokenizer):
    nameless = dataclasses.replace(tokenizer, start=None)
    with pytest.raises(UserError, match="no start token"):
        encode(nameless, CHAT, "What?", "Slow.", windows=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "###Human: ###"}, "prompt.template"),
        ({"instruction": "<AudioHere><AudioHere> {}"}, "<AudioHere> once"),
        ({"instruction": "<AudioHere>"}, r"\{\} once"),
        ({"end_sign": ""}, "prompt.end_sign is empty"),
        ({"end_sign": "#<EndHere>"}, "end_sign is '#<E.*only be in prompt.end_sign, w"),
        ({"next_turn": "{}<EndHere>{}"}, "next_turn is .* only be in prompt.end_sign"),
        (
            {"template": "<AudioHere> {}"},
            "template is .* only be in prompt.instruction",
        ),
    ],
)
def test_bad_prompts_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CHAT, **change)


def test_turns_of_the_published_prompt_follow_each_other(tokenizer):
    """As the conversation of the original's demo writes them, "###" between turns."""
    earlier = [("Genre?", "Jazz."), ("Fast?", "No.")]
    example = encode(tokenizer, CHAT, "Why?", "So.", windows=1, earlier=earlier)
    after = tokenizer.encode(
        "</Audio> Genre? ###Assistant: Jazz.###Human: Fast? ###Assistant: No."
        "###Human: Why? ###Assistant: "
    )
    answer = tokenizer.encode("So.###")
    place = example.audio_slot.index(0) + 1
    assert example.tokens[place:] == [*after, *answer]
    assert sum(example.target_mask) == len(answer)


def test_a_caption_has_no_earlier_turns(tokenizer):
    with pytest.raises(UserError, match="no earlier turns"):
        encode(tokenizer, CAPTION, "", None, 1, earlier=[("a", "b")])


def test_the_end_sign_may_be_the_models_own(tokenizer):
    prompt = dataclasses.replace(CHAT, end_sign=MODEL_END)
    example = encode(tokenizer, prompt, "How fast?", "Slow.", windows=2)
    answer = [*tokenizer.encode("Slow."), tokenizer.end]
    assert example.tokens[-len(answer) :] == answer
    assert sum(example.target_mask) == len(answer)
    nameless = dataclasses.replace(tokenizer, end=None)
    with pytest.raises(UserError, match="names no end token: set eos_token"):
        encode(nameless, prompt, "How fast?", "Slow.", windows=2)


def test_a_model_without_a_start_token_needs_none(tokenizer):
    plain = dataclasses.replace(tokenizer, start=None, starts_plainly=True)
    example = encode(plain, CHAT, "How fast?", None, windows=2)
    assert example.tokens == encode(tokenizer, CHAT, "How fast?", None, 2).tokens[1:]


def test_a_next_turn_has_two_places():
    with pytest.raises(UserError, match="must contain {} twice"):
        dataclasses.replace(CHAT, next_turn="{} and no more")
