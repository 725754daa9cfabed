"""Tokenizers in GGUF files give the tokens of the tokenizers that they were made of."""

import pytest
import tokenizers
import transformers
from helpers import gguf_files
from helpers.gguf_files import config_of, converted, folder_of, json_of, write
from helpers.tokenizer_files import TEXTS
from sentencepiece import SentencePieceProcessor

from musilingo_jax.pretrained import gguf_folder, tokenizer
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("original") / "folder", config_of())


@pytest.mark.parametrize(
    "pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "smaug-bpe", "default"]
)
def test_a_byte_level_tokenizer(original, tmp_path, pre, capsys):
    said = gguf_files.byte_level_fields(original, pre)
    path = write(tmp_path / "x.gguf", original, tokenizer=said)
    out = converted(path, tmp_path / "out")
    ours, theirs = tokenizer.load(out), tokenizer.load(original)
    assert (ours.start, ours.ends, ours.size) == (300, (302,), 304)
    assert ours.texts == theirs.texts
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text
        if pre in ("gpt-2", "default"):
            assert ours.encode(text) == theirs.encode(text)
    digits = {"smollm": 3, "qwen2": 3}.get(pre, 1)
    steps = json_of(out / "tokenizer.json")["pre_tokenizer"]
    cut = tokenizer.TokenizerJson.read(out / "tokenizer.json").content
    assert cut["model"]["ignore_merges"] == (pre == "llama-bpe")
    words = tokenizers.pre_tokenizers.PreTokenizer
    library = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    assert isinstance(library.pre_tokenizer, words) and steps["type"] == "Sequence"
    found = library.pre_tokenizer.pre_tokenize_str("in 120")
    assert len([w for w, _ in found if w.strip("Ġ").isdigit()]) == digits
    # The library adds the start token, and knows which tokens are special.
    read = transformers.AutoTokenizer.from_pretrained(out)
    assert read("calm")["input_ids"][0] == read.bos_token_id == 300
    assert (read.eos_token, read.chat_template) == ("<|eot_id|>", "{{ messages }}")
    assert ("cut as by GPT-2" in capsys.readouterr().err) == (pre == "default")
    entries = json_of(out / "tokenizer.json")["added_tokens"]
    special = {entry["content"]: entry["special"] for entry in entries}
    assert special == {
        "<|begin_of_text|>": True,
        "<|end_of_text|>": True,
        "<|eot_id|>": True,
        "<music>": False,
    }


@pytest.mark.parametrize(
    "said, pattern",
    [
        ({"pre": "deepseek-llm"}, "into words .'deepseek-llm'. is not known, .*smollm"),
        ({"model": "bert"}, "of the kind 'bert', but only gpt2 and llama can be"),
        ({"merges": ["a b c"]}, "its tokenizer is damaged .*; get it again"),
        ({"merges": ["q zz"]}, "its tokenizer is damaged .*; get it again"),
        ({"tokens": ["a"] * 400}, r"400 tokens, more than its embedding has rows .304"),
        ({"token_type": [9] * 304}, "tokens of unknown types; get it again"),
        ({"token_type": [1]}, "tokenizer's token_type are missing or damaged; get"),
        ({"bos_token_id": 400}, "bos_token_id is 400, but it has 304 tokens; get"),
        ({"new_rule": True}, "do to its tokens: tokenizer.ggml.new_rule; get the"),
    ],
)
def test_tokenizers_that_are_refused(original, tmp_path, said, pattern):
    said = gguf_files.byte_level_fields(original) | said
    path = write(tmp_path / "x.gguf", original, tokenizer=said)
    with pytest.raises(UserError, match=f"x.gguf: .*{pattern}"):
        gguf_folder.convert(str(path), dtype=None)


def test_rows_without_a_token_and_several_ends(tmp_path):
    """llama.cpp's converter fills such rows with tokens that are not used."""
    folder = folder_of(tmp_path / "folder", config_of(vocab_size=308))
    said = gguf_files.byte_level_fields(folder)
    said["tokens"] = [*said["tokens"], "[PAD304]", "[PAD305]"]
    said["token_type"] = [*said["token_type"], 5, 5]
    said |= {"eot_token_id": 301, "padding_token_id": 301}
    path = write(tmp_path / "x.gguf", folder, tokenizer=said, template=None)
    out = converted(path, tmp_path / "out")
    assert json_of(out / "config.json")["vocab_size"] == 308
    assert json_of(out / "config.json")["pad_token_id"] == 301
    assert json_of(out / "generation_config.json")["eos_token_id"] == [302, 301]
    ours = tokenizer.load(out)
    assert (ours.size, ours.end, ours.ends) == (304, 302, (301, 302))
    assert not (out / "chat_template.jinja").exists()


def sentencepiece_fields(model):
    pieces = range(model.vocab_size())
    kinds = {token: 1 for token in pieces}
    kinds |= {token: 2 for token in pieces if model.is_unknown(token)}
    kinds |= {token: 3 for token in pieces if model.is_control(token)}
    kinds |= {token: 6 for token in pieces if model.is_byte(token)}
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [model.id_to_piece(token) for token in pieces],
        "scores": [model.get_score(token) for token in pieces],
        "token_type": [kinds[token] for token in pieces],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


def test_a_sentencepiece_tokenizer(trained, tmp_path):
    model = SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    folder = folder_of(tmp_path / "folder", config_of(vocab_size=model.vocab_size()))
    said = sentencepiece_fields(model)
    path = write(tmp_path / "x.gguf", folder, tokenizer=said)
    out = converted(path, tmp_path / "out")
    assert not (out / "tokenizer.json").exists()
    ours, theirs = tokenizer.load(out), tokenizer.load(trained)
    assert (ours.start, ours.end, ours.leads) == (1, 2, True)
    assert ours.texts == theirs.texts
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    read = transformers.AutoTokenizer.from_pretrained(out)
    assert read("calm")["input_ids"] == [1, *theirs.encode("calm")]
    write(path, folder, tokenizer=said | {"scores": [0.0]})
    with pytest.raises(UserError, match="tokenizer's scores are missing or damaged"):
        gguf_folder.convert(str(path), dtype=None)
    write(path, folder, tokenizer=said | {"tokens": ["a"] * model.vocab_size()})
    with pytest.raises(UserError, match="x.gguf: its tokenizer is damaged .*; get it"):
        gguf_folder.convert(str(path), dtype=None)
