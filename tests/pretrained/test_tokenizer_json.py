"""Converted files give the tokens of their original, and byte-level ones their own."""

import shutil

import pytest
import tokenizers
from helpers.tokenizer_files import TEXTS, byte_level, rewrite, vocabulary
from tokenizers import decoders, models

from musilingo_jax.pretrained import tokenizer
from musilingo_jax.runtime.errors import UserError

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


def test_other_kinds_are_refused(tmp_path):
    unigram = tokenizers.Tokenizer(models.Unigram([("a", 0.0)], unk_id=0))
    unigram.decoder = decoders.Metaspace()
    unigram.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        UserError, match="of the kind Unigram; supported are byte pairs"
    ):
        tokenizer.load(tmp_path)
    whole = tokenizers.Tokenizer(models.BPE())
    whole.decoder = decoders.WordPiece()
    whole.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="of the kind BPE"):
        tokenizer.load(tmp_path)
