"""Text is cut as sentencepiece itself and the released files cut it."""

import dataclasses
import json
import random
import shutil

import numpy as np
import pytest
import tokenizers
import transformers
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges

from musilingo_jax.answering import stop_texts
from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.corpora import songs
from musilingo_jax.pretrained import sources, tokenizer, weights
from musilingo_jax.runtime.errors import UserError

LEARNT = (
    "###Human: <Audio></Audio> What is it?  How  fast? ###Assistant: ",
    "It is a calm piano piece, slow and quiet, 120 beats per minute.\n###",
    "</s><s> <unk></s> </s>\n",
)
CHAT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=160,
)
TEXTS = (
    "###Human: <Audio>",
    "</Audio> How fast is it? ###Assistant: ",
    "It is slow.###",
    "A calm piece.\n",
    "a",
    " ",
    "   ",
    " a",
    "  two before, two  between, two after  ",
    "\n",
    "\n\n a\tb\r\n",
    "♪ 🎵 Café naïve",
    "日本の音楽 und Straße",
    "▁a▁▁b",
    "</s>",
    "Is it </s> or <s>, <unk> or <0x0A>?",
    " ###",
    "12,345.6",
    "a\0b",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer.model as LLaMA's: spaces alone are the last to be merged."""
    path = tmp_path_factory.mktemp("llama")
    SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNT * 20),
        model_prefix=str(path / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    (path / "tokenizer.vocab").unlink()
    model = ModelProto.FromString((path / "tokenizer.model").read_bytes())
    for piece in model.pieces:
        if set(piece.piece) == {"▁"}:
            piece.score = -1e9
    (path / "tokenizer.model").write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def original(folder):
    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def converted(folder, original, tmp_path_factory):
    """The folder that transformers makes of it, with merges as released files have."""
    path = tmp_path_factory.mktemp("converted")
    transformers.LlamaTokenizer.from_pretrained(folder).save_pretrained(path)

    def change(said):
        scores = {piece: original.get_score(t) for piece, t in vocabulary(said).items()}
        said["model"]["merges"] = generate_merges(vocabulary(said), scores)

    rewrite(path / "tokenizer.json", change)
    return path


def vocabulary(said):
    return said["model"]["vocab"]


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def write(path, said):
    path.write_text(json.dumps(said))


def rewrite(path, change):
    said = json.loads(path.read_text())
    change(said)
    write(path, said)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_those_of_sentencepiece(folder, original, text):
    read = tokenizer.load(folder)
    assert read.encode(text) == original.encode(text)
    assert read.decode(read.encode(text)) == text.replace("▁", " ")
    assert read.decode(read.encode(text)) == original.decode(original.encode(text))
    assert (read.start, read.end, read.size) == (1, 2, 400)


def test_each_piece_has_a_space_before_and_keeps_that_after_it(folder, original):
    tokens = tokenizer.load(folder).encode
    assert tokens("") == []
    assert tokens(" a") != tokens("a")
    assert original.id_to_piece(tokens("it "))[-1] == "▁"
    assert original.id_to_piece(tokens("</Audio>"))[0].startswith("▁")


SPLIT = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPENDED = {
    "type": "Sequence",
    "normalizers": [{"type": "Prepend", "prepend": "▁"}, MARK],
}
SPELLINGS = {
    "as transformers makes it": None,
    "legacy": (PREPENDED, None),
    "first": (None, SPLIT | {"split": False}),
    "always": (None, SPLIT | {"prepend_scheme": "always", "split": False}),
    "words apart": (None, SPLIT | {"split": True}),
    "before there were schemes": (
        None,
        {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    ),
    "marked twice": (PREPENDED, {"type": "Sequence", "pretokenizers": [SPLIT]}),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_converted_files_give_the_same_tokens(converted, original, tmp_path, spelling):
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    if spelling is not None:
        normalizer, cuts = spelling
        rewrite(
            tmp_path / "tokenizer.json",
            lambda said: said.update(normalizer=normalizer, pre_tokenizer=cuts),
        )
    read = tokenizer.load(tmp_path)
    for text in TEXTS:
        assert read.encode(text) == original.encode(text), text
        assert read.decode(read.encode(text)) == text.replace("▁", " ")
    assert (read.start, read.end, read.size) == (1, 2, 400)


def test_converted_files_as_they_are_lack_a_space(converted, original):
    """What is put right; if this fails, it need not be any more."""
    theirs = tokenizers.Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert theirs.encode(" a", add_special_tokens=False).ids != original.encode(" a")


def test_merges_of_llamas_vocabulary_are_put_in_order(converted, tmp_path):
    """As transformers 5 converts the released file; the tokens are LLaMA's own."""
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    known = {"▁▁": 259, "▁▁▁▁": 268, "▁/": 847, "▁▁▁": 1678, "▁": 29871, "/": 29914}

    def change(said):
        filled = {f"piece {token}": token for token in range(30_000)}
        for piece, token in known.items():
            del filled[f"piece {token}"]
            filled[piece] = token
        merges = [("▁", "▁"), ("▁▁", "▁▁"), ("▁", "/"), ("▁▁", "▁"), ("▁▁▁", "▁")]
        for kept in ("<unk>", "<s>", "</s>"):
            filled[kept] = vocabulary(said)[kept]
        said["model"].update(vocab=filled, merges=merges)

    rewrite(tmp_path / "tokenizer.json", change)
    encode = tokenizer.load(tmp_path).encode
    assert encode(" /") == [29871, 847]
    assert encode("    /") == [268, 847]
    assert encode("   ") == [268]
    assert encode("  ") == [1678]


def test_a_model_that_puts_no_space_before_text_gets_none(converted, tmp_path):
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    never = SPLIT | {"prepend_scheme": "never"}
    rewrite(tmp_path / "tokenizer.json", lambda said: said.update(pre_tokenizer=never))
    read = tokenizer.load(tmp_path)
    assert read.decode(read.encode("it")) == "it"
    assert read.decode(read.encode(" it")) == " it"
    assert read.texts[read.encode("it")[0]][:1] != b" "


def test_sentencepiece_comes_before_a_converted_file(copy):
    write(copy / "tokenizer.json", {"added_tokens": [], "model": {"type": "BPE"}})
    assert tokenizer.load(copy).size == 400


def test_the_prompt_is_cut_piece_by_piece_as_the_original_does(folder, original):
    read = tokenizer.load(folder)
    for question in ("How fast is it?", " What  is it ", "日本?"):
        example = encode(read, CHAT, question, "It is slow.", windows=3)
        before = original.encode("###Human: <Audio>")
        after = original.encode("</Audio> " + question + " ###Assistant: ")
        answer = original.encode("It is slow.###")
        assert example.tokens == [1, *before, 0, 0, 0, *after, *answer]
        assert original.id_to_piece(after[-1]) == "▁"


def test_a_caption_is_cut_as_the_original_does(folder, original):
    caption = PromptConfig(
        template="", instruction="", end_sign="\n", max_answer_tokens=32
    )
    example = encode(tokenizer.load(folder), caption, "", "A calm piece.", windows=2)
    assert example.tokens == [1, 0, 0, *original.encode("A calm piece.\n")]


def stop_table(read, text, vocab):
    """The automaton of one text with a column for every token."""
    found = stop_texts.stops_of(read, (text,), vocab)
    return found.table[:, found.kind]


@pytest.mark.parametrize("made", ["folder", "converted"])
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


def test_letters_of_special_tokens_are_not_merged_into_them(converted, tmp_path):
    """A converted vocabulary may well hold all the halves of `</s>`."""
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)

    def change(said):
        vocabulary = said["model"]["vocab"]
        vocabulary["</s"] = len(vocabulary)
        said["model"]["merges"] = [["</", "s"], ["</s", ">"]]

    rewrite(tmp_path / "tokenizer.json", change)
    read = tokenizer.load(tmp_path)
    assert read.encode("</s>") != [2]
    assert read.decode(read.encode("</s>")) == "</s>"


def test_stop_table_follows_pieces_and_bytes(folder, original):
    """The sign is one piece, two, bytes, or part of what stands before it."""
    read = tokenizer.load(folder)
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


def test_stop_table_follows_letters_of_several_bytes(folder):
    read = tokenizer.load(folder)
    table = stop_table(read, "♪", read.size)
    state = 0
    for byte in "♪".encode():
        assert state < 3
        state = table[state, 3 + byte]
    assert state == 3


def test_added_tokens_are_counted_and_silent(copy, original):
    """Vicuna's 32,001st."""
    write(copy / "added_tokens.json", {"[PAD]": 400})
    write(copy / "special_tokens_map.json", {"pad_token": "[PAD]"})
    read = tokenizer.load(copy)
    assert read.size == 401
    assert read.decode([*read.encode("slow"), 400]) == "slow"
    assert read.encode("[PAD]") == original.encode("[PAD]")


def test_added_tokens_that_are_not_special_are_said(copy):
    entry = {"content": "<music>", "special": False}
    write(copy / "tokenizer_config.json", {"added_tokens_decoder": {"402": entry}})
    read = tokenizer.load(copy)
    assert read.size == 403
    assert read.decode([402, 401]) == "<music>"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # The first conversions of LLaMA, which leave it to sentencepiece.
        (
            {
                "tokenizer_config.json": {"bos_token": "", "eos_token": ""},
                "special_tokens_map.json": {},
                "config.json": {"bos_token_id": 0, "eos_token_id": 1},
            },
            (1, 2),
        ),
        (
            {
                "tokenizer_config.json": {
                    "bos_token": {"__type": "AddedToken", "content": "<s>"},
                    "eos_token": {"content": "</s>", "special": True},
                    "pad_token": None,
                    "add_bos_token": True,
                }
            },
            (1, 2),
        ),
        # The map has the last word unless the config lists the added tokens.
        ({"special_tokens_map.json": {"bos_token": "</s>"}}, (2, 2)),
        (
            {
                "special_tokens_map.json": {"bos_token": "</s>"},
                "tokenizer_config.json": {
                    "bos_token": "<s>",
                    "added_tokens_decoder": {"1": {"content": "<s>", "special": True}},
                },
            },
            (1, 2),
        ),
    ],
)
def test_start_and_end_are_those_that_the_files_name(copy, files, expected):
    for name, said in files.items():
        write(copy / name, said)
    read = tokenizer.load(copy)
    assert (read.start, read.end) == expected


def byte_level(folder):
    """A tokenizer.json as LLaMA 3's: special tokens beyond the vocabulary proper."""
    pairs = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(LEARNT, trainer)
    pairs.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    pairs.add_tokens(["<music>"])
    pairs.enable_truncation(4)
    pairs.enable_padding(length=9)
    pairs.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    write(folder / "tokenizer_config.json", config)
    return pairs


def test_byte_level_files_are_read_as_they_are(tmp_path):
    pairs = byte_level(tmp_path)
    pairs.no_truncation()
    pairs.no_padding()
    read = tokenizer.load(tmp_path)
    for text in TEXTS:
        assert read.encode(text) == pairs.encode(text).ids
        assert read.decode(read.encode(text)) == text
    special = {name: pairs.token_to_id(name) for name in pairs.get_vocab()}
    assert read.start == special["<|begin_of_text|>"]
    assert read.end == special["<|eot_id|>"]
    assert read.size == pairs.get_vocab_size()
    assert read.end not in read.encode("Is it <|eot_id|>?")
    said = [read.start, *read.encode("Is it <|eot_id|>?"), read.end]
    assert read.decode(said) == "Is it <|eot_id|>?"
    assert read.decode(read.encode("<music>!")) == "<music>!"
    assert read.decode(read.encode("♪")[:1]) == "\N{REPLACEMENT CHARACTER}"


def test_the_config_of_the_model_names_the_rest(tmp_path):
    byte_level(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizer.load(tmp_path).start is None
    write(tmp_path / "config.json", {"bos_token_id": 300, "eos_token_id": [302, 301]})
    read = tokenizer.load(tmp_path)
    assert (read.start, read.end) == (300, 302)
    write(tmp_path / "config.json", {"bos_token_id": 5000, "eos_token_id": None})
    read = tokenizer.load(tmp_path)
    assert (read.start, read.end) == (None, None)


def test_tiktoken_gives_way_to_the_library(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(UserError, match="is a file of tiktoken.*copy the tokenizer.js"):
        tokenizer.load(tmp_path)
    byte_level(tmp_path)
    assert tokenizer.load(tmp_path).size == 304


def test_the_embedded_tokenizer_is_as_transformers_reads_it():
    folder = sources.resolve("musilingo-tiny/language_model")
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


def test_what_is_no_text_is_refused(folder):
    with pytest.raises(UserError, match="character number 4 is none: write it in UTF"):
        tokenizer.load(folder).encode(b"caf\xe9".decode(errors="surrogateescape"))


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"copy the tokenizer\.model or tokenizer\.js"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_damaged_sentencepiece_model_is_refused(copy, converted, size):
    path = copy / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:size])
    # Nor is another file silently taken in its place.
    shutil.copy(converted / "tokenizer.json", copy)
    with pytest.raises(UserError, match=r"tokenizer\.model: .*cannot be read.*anew"):
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


def test_other_kinds_are_refused(tmp_path):
    unigram = tokenizers.Tokenizer(models.Unigram([("a", 0.0)], unk_id=0))
    unigram.decoder = decoders.Metaspace()
    unigram.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="of the kind Unigram; known are byte pairs"):
        tokenizer.load(tmp_path)
    whole = tokenizers.Tokenizer(models.BPE())
    whole.decoder = decoders.WordPiece()
    whole.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="of the kind BPE"):
        tokenizer.load(tmp_path)


def test_more_tokens_than_embeddings_are_refused(copy):
    config = json.loads(
        (sources.resolve("musilingo-tiny/language_model") / "config.json").read_text()
    )
    write(copy / "config.json", config | {"vocab_size": 400})
    assert weights.load_tokenizer(copy).size == 400
    write(copy / "added_tokens.json", {"[PAD]": 400})
    with pytest.raises(UserError, match="has 401 tokens but .* embeds only 400"):
        weights.load_tokenizer(copy)


def test_tokenizers_are_keys_by_identity(folder):
    """So that tables made for one are found again without reading its texts."""
    one, other = tokenizer.load(folder), tokenizer.load(folder)
    assert len({one, other, dataclasses.replace(one)}) == 3
    assert stop_texts.stops_of(one, ("###",), 400) is stop_texts.stops_of(
        one, ("###",), 400
    )
