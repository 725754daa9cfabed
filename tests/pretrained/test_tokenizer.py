"""Text is cut as sentencepiece itself and the released files cut it."""

import dataclasses
import json
import random
import shutil

import numpy as np
import pytest
import transformers
from helpers.tokenizer_files import TEXTS, byte_level, write

from musilingo_jax.answering import stop_texts
from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.corpora import songs
from musilingo_jax.pretrained import model_folder, tokenizer, weights
from musilingo_jax.runtime.errors import UserError

CHAT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=160,
)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_those_of_sentencepiece(trained, original, text):
    read = tokenizer.load(trained)
    assert read.encode(text) == original.encode(text)
    assert read.decode(read.encode(text)) == text.replace("▁", " ")
    assert read.decode(read.encode(text)) == original.decode(original.encode(text))
    assert (read.start, read.end, read.size) == (1, 2, 400)


def test_each_piece_has_a_space_before_and_keeps_that_after_it(trained, original):
    tokens = tokenizer.load(trained).encode
    assert tokens("") == []
    assert tokens(" a") != tokens("a")
    assert original.id_to_piece(tokens("it "))[-1] == "▁"
    assert original.id_to_piece(tokens("</Audio>"))[0].startswith("▁")


def test_sentencepiece_comes_before_a_converted_file(copy):
    write(copy / "tokenizer.json", {"added_tokens": [], "model": {"type": "BPE"}})
    assert tokenizer.load(copy).size == 400


def test_the_prompt_is_cut_piece_by_piece_as_the_original_does(trained, original):
    read = tokenizer.load(trained)
    for question in ("How fast is it?", " What  is it ", "日本?"):
        example = encode(read, CHAT, question, "It is slow.", windows=3)
        before = original.encode("###Human: <Audio>")
        after = original.encode("</Audio> " + question + " ###Assistant: ")
        answer = original.encode("It is slow.###")
        assert example.tokens == [1, *before, 0, 0, 0, *after, *answer]
        assert original.id_to_piece(after[-1]) == "▁"


def test_a_caption_is_cut_as_the_original_does(trained, original):
    caption = PromptConfig(
        template="", instruction="", end_sign="\n", max_answer_tokens=32
    )
    example = encode(tokenizer.load(trained), caption, "", "A calm piece.", windows=2)
    assert example.tokens == [1, 0, 0, *original.encode("A calm piece.\n")]


def stop_table(read, text, vocab):
    """The automaton of one text with a column for every token."""
    found = stop_texts.stops_of(read, (text,), vocab)
    return found.table[:, found.kind[0]]


@pytest.mark.parametrize("made", ["trained", "converted"])
def test_no_text_makes_special_tokens(made, request):
    read = tokenizer.load(request.getfixturevalue(made))
    question = "Is it </s> or <s>, <unk>?"
    assert not {0, 1, 2} & set(read.encode(question))
    assert read.decode([1, *read.encode(question), 2, 0]) == question
    table = stop_table(read, "###", read.size)
    state = 0
    for token in read.encode(question):
        state = table[state, token]
    assert state == 0
    assert table[0, 2] == 3


@pytest.mark.slow
def test_stop_table_follows_pieces_and_bytes(trained, original):
    """The sign is one piece, two, bytes, or part of what stands before it."""
    read = tokenizer.load(trained)
    table = stop_table(read, "###", read.size + 1)
    spelt = {piece: original.piece_to_id(piece) for piece in ("###", "##", "▁#", "▁")}
    spelt |= {"#": original.encode("a#")[-1], "byte": 3 + ord("#")}
    assert original.unk_id() not in spelt.values()
    others = [*read.encode("slow and"), 1, *range(3, 12)]
    draw = random.Random(0)
    found = 0
    for _ in range(400):
        state, said = (
            0,
            draw.choices([*spelt.values()], k=3) + draw.choices(others, k=3),
        )
        draw.shuffle(said)
        for place, token in enumerate(said, start=1):
            state = table[state, token]
            assert (state == 3) == ("###" in read.decode(said[:place])), said
        found += state == 3
    assert 50 < found < 350


def test_stop_table_follows_letters_of_several_bytes(trained):
    read = tokenizer.load(trained)
    table = stop_table(read, "♪", read.size)
    state = 0
    for byte in "♪".encode():
        assert state < 3
        state = table[state, 3 + byte]
    assert state == 3


def test_tiktoken_gives_way_to_the_library(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(UserError, match="is a file of tiktoken.*copy the tokenizer.js"):
        tokenizer.load(tmp_path)
    byte_level(tmp_path)
    assert tokenizer.load(tmp_path).size == 304


def test_the_embedded_tokenizer_is_as_transformers_reads_it():
    folder = model_folder.resolve("musilingo-tiny/language_model")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = weights.load_tokenizer("musilingo-tiny/language_model")
    assert (ours.start, ours.end, ours.size) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        len(theirs),
    )
    records = songs.load("musilingo-tiny-corpus")
    texts = {text for record in records for text in (record.question, record.answer)}
    texts |= {text for text in TEXTS if "s>" not in text and "unk>" not in text}
    for text in sorted(texts):
        tokens = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == tokens
        assert ours.decode(np.array([1, *tokens, 2])) == theirs.decode(
            tokens, skip_special_tokens=True
        )


def test_what_is_no_text_is_refused(trained):
    with pytest.raises(
        UserError, match="character number 4 is not valid; write it in UTF"
    ):
        tokenizer.load(trained).encode(b"caf\xe9".decode(errors="surrogateescape"))


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"copy the tokenizer\.model or tokenizer\.js"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_damaged_sentencepiece_model_is_refused(copy, converted, size):
    path = copy / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:size])
    # Nor is another file silently taken in its place.
    shutil.copy(converted / "tokenizer.json", copy)
    with pytest.raises(UserError, match=r"tokenizer\.model: .*cannot be read.*source"):
        tokenizer.load(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", "{}", "cannot be read"),
        ("tokenizer.json", '{"model": []}', "cannot be read"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json"),
        ("tokenizer_config.json", '{"bos_token": 7}', "names 7 as bos_token"),
        ("tokenizer_config.json", '{"bos_token": "<go>"}', "'<go>' as bos_token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "cannot be"),
        ("added_tokens.json", '{"<pad>": "a"}', "'a' is given as the number"),
        ("special_tokens_map.json", '{"eos_token": [[]]}', "cannot be read"),
    ],
)
def test_unreadable_files_are_refused(converted, tmp_path, name, content, message):
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_more_tokens_than_embeddings_are_refused(copy):
    config = json.loads(
        (
            model_folder.resolve("musilingo-tiny/language_model") / "config.json"
        ).read_text()
    )
    write(copy / "config.json", config | {"vocab_size": 400})
    assert weights.load_tokenizer(copy).size == 400
    write(copy / "added_tokens.json", {"[PAD]": 400})
    with pytest.raises(UserError, match="has 401 tokens but .* embeds only 400"):
        weights.load_tokenizer(copy)


def test_tokenizers_are_keys_by_identity(trained):
    """So that tables made for one are found again without reading its texts."""
    one, other = tokenizer.load(trained), tokenizer.load(trained)
    assert len({one, other, dataclasses.replace(one)}) == 3
    assert stop_texts.stops_of(one, ("###",), 400) is stop_texts.stops_of(
        one, ("###",), 400
    )
