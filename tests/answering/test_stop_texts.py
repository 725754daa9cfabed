"""The texts that end an answer, in any tokenisation, and what is shown before them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_model as tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from musilingo_jax.answering.answer import answer
from musilingo_jax.answering.stop_texts import Stops, settled, stops_of, tidy
from musilingo_jax.pretrained.tokenizer import load


@pytest.mark.parametrize(
    "pieces",
    [
        ["a", "###", "b"],
        ["a", "##", "#", "b"],
        ["a", "#", "##", "b"],
        ["a", "!#", "##", "b"],
        ["a", "Ġ#", "##", "b"],
        ["a", "##", "#?", "b"],
        ["a", "!#", "#", "#?", "b"],
        ["a", "</s>", "b"],
    ],
)
def test_stops_on_the_stop_text_in_any_tokenisation(pieces):
    script = [tiny.token(piece) for piece in pieces]
    assert len(set(script)) == len(script)
    model = tiny.parrot_answerer(script)
    asked = [(np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")]
    expected = "a!" if "!#" in pieces else "a"
    assert answer(model, tiny.PROMPT, asked, tiny.GREEDY) == [expected]
    automaton = model.stops(("###",))
    states = follow(automaton, script[:-1])
    assert all(state < 3 for state in states[:-1])
    assert states[-1] == automaton.finished == 3


def follow(automaton: Stops, tokens: list[int]) -> list[int]:
    """The states before the first of some tokens and after each of them."""
    states = [jnp.zeros(1, jnp.int32)]
    for token in tokens:
        states.append(automaton.follow(states[-1], jnp.full(1, token)))
    return [int(state[0]) for state in states]


def test_continues_where_the_stop_text_is_not_complete():
    script = [tiny.token(piece) for piece in ["#", "a", "##", "b", "!#", "#?", "c"]]
    model = tiny.parrot_answerer([*script, tiny.tokenizer().end])
    asked = [(np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")]
    assert answer(model, tiny.PROMPT, asked, tiny.GREEDY) == ["#a##b!##?c"]


@pytest.mark.parametrize(
    "texts", [("###",), ("\n",), ("###", "\n\n"), ("#?#", "##!", "#"), ("?!#", "!##")]
)
def test_the_automaton_agrees_with_the_decoded_text(texts):
    tokenizer = tiny.tokenizer()
    stops = stops_of(tokenizer, texts, tokenizer.size + 1)
    likely = [
        token
        for token in range(tokenizer.size)
        if set(tokenizer.decode([token])) & set("#!?\n ")
    ]
    drawn = np.random.default_rng(0).choice(likely, size=(300, 6))
    state, finished = jnp.zeros(300, jnp.int32), np.zeros(300, bool)
    for step in range(6):
        token = drawn[:, step]
        ends = np.asarray(stops.finishing(state))[np.arange(300), token]
        state = stops.follow(state, jnp.asarray(token))
        finished = np.array(
            [
                any(text in tokenizer.decode(row) for text in texts)
                for row in drawn[:, : step + 1].tolist()
            ]
        )
        np.testing.assert_array_equal(np.asarray(state) == stops.finished, finished)
        np.testing.assert_array_equal(ends, finished)
    assert 0 < finished.sum() < 300


def test_many_texts_take_little_memory():
    tokenizer = tiny.tokenizer()
    texts = tuple(f"{name}:\n" for name in ("Human", "Assistant", "### System", "User"))
    stops = stops_of(tokenizer, texts, 128_000)
    assert stops.table.nbytes < 20_000
    assert stops.kind.nbytes == 4 * 128_000
    states = follow(stops, tokenizer.encode("I say\nUse? no. User:\n"))
    assert stops.finished not in states[:-1]
    assert states[-1] == stops.finished


def test_every_end_token_ends(tmp_path):
    """LLaMA 3.1 names three, in another file than the tokenizer's."""
    tiny.save_tokenizer(tmp_path)
    word = tiny.token("a")
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2, 0, word]})
    )
    found = load(tmp_path)
    # "a" is a word: a file that says it ends a text is wrong.
    assert (found.end, found.ends) == (2, (0, 2))
    stops = stops_of(found, ("###",), found.size)
    ends = np.flatnonzero(stops.finishing(jnp.zeros(1, jnp.int32))[0])
    assert ends.tolist() == [0, 2, tiny.token("###")]


def test_the_automaton_with_sentencepiece_spaces_and_bytes(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", "<0x23>", "a", "▁", "#", "##", "▁#", "▁##"]
    bpe = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("#", "#"), ("▁", "#"), ("▁", "##")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bpe.save(str(tmp_path / "tokenizer.json"))
    stops = stops_of(load(tmp_path), ("###",), len(pieces))

    def spelled(*tokens):
        return follow(stops, [pieces.index(piece) for piece in tokens])[-1]

    assert spelled("▁#", "##") == 3
    assert spelled("##", "<0x23>") == 3
    assert spelled("#", "▁##") == 2
    assert spelled("##", "▁#") == 1
    assert spelled("#", "a") == 0
    assert spelled("a", "</s>") == 3


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        (" It is jazz.### ###Human: And", "It is jazz."),
        ("Assistant: It is jazz.", "It is jazz."),
        ("It is jazz", "It is jazz"),
        ("###", ""),
    ],
)
def test_tidy(text, answered):
    assert tidy(text, ("###",)) == answered


def test_tidy_cuts_at_the_first_of_several_texts():
    assert tidy("It is jazz.\nHuman: And ### so", ("###", "\nHuman:")) == "It is jazz."
    assert tidy("It is a#b", ("b", "#")) == "It is a"


@pytest.mark.parametrize(
    ("spelled", "shown"),
    [
        (" It is jazz", "It is jazz"),
        (" It is jazz. ", "It is jazz."),
        (" It is jazz. ##", "It is jazz."),
        (" It is jazz. ## ok", "It is jazz. ## ok"),
        (" It is jazz.### Human", "It is jazz."),
        ("Assis", ""),
        ("Assistant: ", ""),
        ("Assistant: It", "It"),
        ("Assistants", "Assistants"),
    ],
)
def test_what_is_settled(spelled, shown):
    assert settled(spelled.encode(), ("###",)) == shown


def test_what_is_settled_only_grows_and_never_cuts_a_letter():
    stops = ("###", "\nHuman:")
    for text in (
        " Assistant: Ein schönes Stück ♪ 🎹 mit # und ## \n\nHu Ende ",
        "音楽です。###",
        "Assist ich? \nHuman: no",
        "\n # ",
    ):
        spelled = text.encode()
        for spoilt in (spelled, spelled[:-2], b"\xff" + spelled, spelled + b"\xf0\x9f"):
            answer = tidy(spoilt.decode(errors="replace"), stops)
            before = ""
            for size in range(len(spoilt) + 1):
                shown = settled(spoilt[:size], stops)
                assert shown.startswith(before) and answer.startswith(shown)
                before = shown
