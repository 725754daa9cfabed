"""A decoder of ours, asked without music: what it reads, in which order it is heard."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import tiny_model

from musilingo_jax import instruct
from musilingo_jax.answering.answer import Answer, prompt_tokens
from musilingo_jax.answering.config import GREEDY
from musilingo_jax.instruction import decoder, instructions
from musilingo_jax.instruction.decoder import Decoder
from musilingo_jax.instruction.making import Said
from musilingo_jax.instruction.pairs import Item
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime.errors import UserError


def item(caption):
    return Item(
        Subject(caption[:9], "a", None, "train", captions=(caption,)), "captioning"
    )


OWN = Decoder(
    source="tiny",
    dtype="float32",
    quantization="",
    template="[user] {} [model] ",
    end_sign="###",
    generate=dataclasses.replace(GREEDY, max_new_tokens=12),
    pairs=2,
)
TINY = dataclasses.replace(tiny_model.answerer(), context=4000)


@pytest.fixture
def answered(monkeypatch):
    """Answers in the reverse order, as a batch may finish them; and what was asked."""
    asked = []

    def answer_each(answerer, prompt, requests, config):
        asked.extend(requests)
        for index in reversed(range(len(requests))):
            yield (
                index,
                Answer(f"reply to {requests[index][1][-12:]}", is_cut=index == 0),
            )

    monkeypatch.setattr(decoder, "answer_each", answer_each)
    return asked


def test_replies_are_in_the_order_of_the_items(answered):
    items = [item(f"Song number {n}.") for n in range(3)]
    said = list(decoder.ask(TINY, OWN, items))
    assert [one.text[-5:-3] for one in said] == ["0.", "1.", "2."]
    assert [one.cut for one in said] == [True, False, False]
    texts = [instructions.text(one, 2) for one in items]
    assert [text for _, text in answered] == texts
    assert all(features.shape == (0, 1) for features, _ in answered)
    assert said[1].written == len(TINY.tokenizer.encode(said[1].text))


def test_a_prompt_has_no_audio_and_all_of_its_turns():
    features = np.zeros((0, 1), np.float32)
    tokens = prompt_tokens(TINY, OWN.prompt, features, "Say something.")
    text = TINY.tokenizer.decode(tokens.tokens[1:])
    assert text == "[user] Say something. [model] "
    assert set(tokens.audio_slot) == {-1}


def test_what_cannot_be_asked_fails_alone(answered):
    items = [item("Too long. " * 400), item("A sign: ###."), item("A good one.")]
    long, sign, good = decoder.ask(TINY, OWN, items)
    assert isinstance(good, Said) and len(answered) == 1
    for problem, message in (
        (
            long,
            r"Too long\.: the request has [\d]+ tokens, .* has room for 3988 before",
        ),
        (sign, "A sign: #: what is known of it contains '###', which ends a turn"),
    ):
        with pytest.raises(UserError, match=message):
            raise problem


def test_the_instruction_says_what_is_known_and_how_to_reply():
    known = Subject(
        *("a", "a", None, "train"),
        captions=("A song with {braces}.",),
        facts={"key": "A minor"},
        chords=("A minor",) * 99,
    )
    for family in ("understanding", "captioning", "reasoning"):
        text = instructions.text(Item(known, family), 7)
        assert "Write 7 " in text and '[{"question": "…", "answer": "…"}, …]' in text
        told = json.loads(text.rpartition("\n\n")[2])
        assert told["key"] == "A minor" and told["captions"] == [
            "A song with {braces}."
        ]
        assert len(told["chords"]) == 32 and "tags" not in told


def test_a_model_without_a_chat_template_is_told(tmp_path):
    with pytest.raises(UserError, match="musilingo-tiny-5 cannot be asked by a chat"):
        instruct.main(
            instruct.parser().parse_args(
                ["musilingo-tiny-corpus", f"--out={tmp_path}", "--by=decoder"]
                + ["--language-model=musilingo-tiny", "--dtype=float32"]
            )
        )


@pytest.mark.slow
def test_the_embedded_decoder_is_asked_in_batches_of_any_size(tmp_path, capsys):
    """It was trained on answers, not on lists of them: it says nothing of use."""
    rows = {}
    for size in (1, 4):
        out = tmp_path / str(size)
        words = ["musilingo-tiny-corpus", f"--out={out}", "--by=decoder", "--limit=3"]
        words += ["--language-model=musilingo-tiny", f"--rows={size}", "--seed=3"]
        words += ["--template=###Human: {} ###Assistant: ", "--end-sign=###"]
        words += ["--families=captioning", "--max-new-tokens=16", "--dtype=float32"]
        instruct.main(instruct.parser().parse_args(words))
        rows[size] = (out / "00000000.jsonl").read_text()
        assert "none for   3 clips" in capsys.readouterr().out
    assert rows[1] == rows[4]
    head, *rest = map(json.loads, rows[1].splitlines())
    assert len(head["identity"]["digest"]) == 64 and len(rest) == 3
    assert all(row["raw"] and row["parse"] == "nothing" for row in rest)
