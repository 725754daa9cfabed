"""Start, end and added tokens are those that the small files name."""

import pytest
from helpers.tokenizer_files import byte_level, write

from musilingo_jax.pretrained import tokenizer
from musilingo_jax.runtime.errors import UserError


def test_added_tokens_are_counted_and_silent(copy, original):
    """Vicuna's 32,001st."""
    write(copy / "added_tokens.json", {"[PAD]": 400})
    write(copy / "special_tokens_map.json", {"pad_token": "[PAD]"})
    read = tokenizer.load(copy)
    assert read.size == 401
    assert read.decode([*read.encode("slow"), 400]) == "slow"
    assert read.encode("[PAD]") == original.encode("[PAD]")


@pytest.mark.parametrize("name", ["generation_config.json", "added_tokens.json"])
def test_a_small_file_that_is_gone_is_named(copy, name):
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
        tokenizer.load(copy)


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
