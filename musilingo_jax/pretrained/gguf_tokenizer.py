"""The tokenizer's files that the fields of a GGUF file amount to.

Two kinds of vocabulary are written, by `tokenizer.ggml.model`:

    gpt2     byte pairs of bytes    tokenizer.json, with the pre-tokenizer that
                                    `tokenizer.ggml.pre` names
    llama    sentencepiece          tokenizer.model, with pieces, scores and types

A pre-tokenizer cuts text into words before pairs are merged. With another one, words
become other tokens than those of the model's training, so an unknown one is refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from sentencepiece import SentencePieceProcessor

from musilingo_jax.pretrained.lazy_tensors import shortened
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line, print_note

CHAT_TEMPLATE = "chat_template.jinja"

_FIELDS = "tokenizer.ggml."
_USED = """
    model pre tokens token_type scores merges bos_token_id eos_token_id
    unknown_token_id padding_token_id add_bos_token add_eos_token add_space_prefix
    remove_extra_whitespaces precompiled_charsmap eot_token_id eom_token_id
"""
# Tokens that other uses of a model have: filling gaps in code, masks, separators.
_IGNORED = """
    fim_pre_token_id fim_suf_token_id fim_mid_token_id fim_pad_token_id
    fim_rep_token_id fim_sep_token_id prefix_token_id suffix_token_id middle_token_id
    seperator_token_id separator_token_id mask_token_id cls_token_id token_type_count
    add_sep_token
"""
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

# The types of tokens, in GGUF as in sentencepiece.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT_2 = [_BYTES | {"use_regex": True}]


def _words(digits: str) -> list[dict[str, Any]]:
    """The cut of GPT-4 and its successors, which differ in how digits are grouped."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}}
    split |= {"behavior": "Isolated", "invert": False}
    return [split, _BYTES | {"use_regex": False}]


@dataclass(frozen=True)
class _Cut:
    """How a `tokenizer.json` cuts text into words.

    Attributes:
      steps: its pre-tokenizers.
      normalizer: what it does to text before; None for nothing.
      whole_words: whether a word that is a piece is that piece, whatever the merges.
      starts: whether texts begin with the start token if the file does not say so.
    """

    steps: list[dict[str, Any]]
    normalizer: dict[str, str] | None = None
    whole_words: bool = False
    starts: bool = False


_LLAMA_3 = _words(r"\p{N}{1,3}")
_CUTS = {
    "gpt-2": _Cut(_GPT_2),
    "default": _Cut(_GPT_2),
    "smollm": _Cut([{"type": "Digits", "individual_digits": True}, *_GPT_2]),
    "qwen2": _Cut(_words(r"\p{N}"), normalizer={"type": "NFC"}),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3"),
        _Cut(_LLAMA_3, whole_words=True, starts=True),
    ),
    # LLaMA 3's, without whole words: SmolLM3 has it.
    "smaug-bpe": _Cut(_LLAMA_3),
}
"""Values of `tokenizer.ggml.pre`."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's fields of a file.

    Attributes:
      name: of the file, for messages.
      fields: key without "tokenizer.ggml." → value.
      pieces: the spelling of each token.
      kinds: the type of each token.
      template: of a conversation, in Jinja; None if there is none.
    """

    name: str
    fields: Mapping[str, Any]
    pieces: list[str]
    kinds: list[int]
    template: str | None

    @classmethod
    def read(cls, name: str, said: Mapping[str, Any], rows: int) -> "Vocabulary":
        """Reads the fields of a file.

        Args:
          name: of the file.
          said: all of its fields.
          rows: the rows of the model's embedding.

        Raises:
          UserError: a field is unknown, missing, or contradicts another one.
        """
        own = {
            key.removeprefix(_FIELDS): value
            for key, value in said.items()
            if key.startswith(_FIELDS)
        }
        templates = {key for key in said if key.startswith("tokenizer.chat_template")}
        others = {key for key in said if key.startswith("tokenizer.")} - templates
        known = {_FIELDS + key for key in f"{_USED} {_IGNORED}".split()}
        # The whole `tokenizer.json`, of files that no current converter writes.
        if unknown := sorted(others - known):
            raise UserError(
                f"{name}: it is not known what these fields do to its tokens: "
                f"{shortened(unknown)}; get the safetensors that it was made from"
            )
        pieces = _listed(name, own, "tokens", str)
        if len(pieces) > rows:
            raise UserError(
                f"{name}: has {len(pieces):,} tokens, more than its embedding has rows "
                f"({rows:,}); get it again"
            )
        own.setdefault("token_type", [_NORMAL] * len(pieces))
        kinds = _listed(name, own, "token_type", int, size=len(pieces))
        if not set(kinds) <= set(range(_NORMAL, _BYTE + 1)):
            raise UserError(f"{name}: has tokens of unknown types; get it again")
        template = said.get("tokenizer.chat_template")
        if not isinstance(template, str | None):
            raise UserError(f"{name}: its chat_template is damaged; get it again")
        if more := sorted(templates - {"tokenizer.chat_template"}):
            print_note(
                f"{name}: templates of other uses are left out: {', '.join(more)}"
            )
        return cls(name, own, pieces, kinds, template)

    def token(self, field: str) -> int | None:
        """The token that a field names; None if it names none.

        Raises:
          UserError: there is no such token.
        """
        token = self.fields.get(field)
        if token is None or (type(token) is int and 0 <= token < len(self.pieces)):
            return token
        raise UserError(
            f"{self.name}: {field} is {one_line(repr(token)[:80])}, but it has "
            f"{len(self.pieces):,} tokens; get it again"
        )

    @property
    def cut(self) -> _Cut | None:
        """How text is cut into words; None if that is not known."""
        pre = self.fields.get("pre")
        return _CUTS.get(pre) if isinstance(pre, str) else None

    @property
    def ends(self) -> list[int]:
        """All tokens that end a text, the usual one first."""
        fields = ("eos_token_id", "eot_token_id", "eom_token_id")
        tokens = [token for field in fields if (token := self.token(field)) is not None]
        return list(dict.fromkeys(tokens))

    @property
    def starts(self) -> bool:
        """Whether texts begin with the start token."""
        cut = self.cut if self.fields.get("model") == "gpt2" else None
        default = cut.starts if cut else True
        return bool(self.fields.get("add_bos_token", default))


def files(vocabulary: Vocabulary, longest: int) -> dict[str, bytes]:
    """The files of a tokenizer: name → content.

    Args:
      vocabulary: what the GGUF file says.
      longest: how many tokens the model was made for.

    Raises:
      UserError: its kind, or its pre-tokenizer, is not known; or it is damaged.
    """
    kind = vocabulary.fields.get("model")
    if not isinstance(kind, str) or kind not in _WRITERS:
        raise UserError(
            f"{vocabulary.name}: its tokenizer is of the kind "
            f"{one_line(repr(kind)[:80])}, but only "
            f"{' and '.join(_WRITERS)} can be converted"
        )
    name, write = _WRITERS[kind]
    written = {name: write(vocabulary)}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast"
        if kind == "gpt2"
        else "LlamaTokenizer",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.starts,
        "add_eos_token": bool(vocabulary.fields.get("add_eos_token", False)),
        "added_tokens_decoder": {
            str(entry.pop("id")): entry for entry in _added(vocabulary)
        },
    }
    for role, field in _ROLES.items():
        if (token := vocabulary.token(field)) is not None:
            config[role] = vocabulary.pieces[token]
    written["tokenizer_config.json"] = as_json(config)
    if vocabulary.template is not None:
        written[CHAT_TEMPLATE] = vocabulary.template.encode()
    return written


def as_json(content: Mapping[str, Any]) -> bytes:
    """The content of a JSON file."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _byte_level(vocabulary: Vocabulary) -> bytes:
    """A `tokenizer.json`."""
    said, name = vocabulary.fields, vocabulary.name
    cut = vocabulary.cut
    if cut is None or said.get("add_space_prefix", False):
        pre = one_line(repr(said.get("pre"))[:80])
        raise UserError(
            f"{name}: how its tokenizer cuts text into words ({pre}) is not known, but "
            f"only {', '.join(_CUTS)}; get the safetensors that it was made from, "
            "whose tokenizer.json says it"
        )
    if said.get("pre") == "default":
        print_note(
            f"{name}: does not say how text is cut into words, so it is cut as by "
            "GPT-2; if the model has a tokenizer.json of its own, use that instead"
        )
    merges = _listed(name, said, "merges", str)
    # The converter of llama.cpp fills rows without a token with unused ones.
    tokens = {
        piece: token
        for token, piece in enumerate(vocabulary.pieces)
        if vocabulary.kinds[token] != _UNUSED
    }
    if len(tokens) != len(vocabulary.pieces) - vocabulary.kinds.count(_UNUSED):
        raise UserError(f"{name}: has a token twice; get it again")
    start = vocabulary.token("bos_token_id")
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(vocabulary),
        "normalizer": cut.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut.steps},
        "post_processor": None
        if start is None or not vocabulary.starts
        else _starting(vocabulary.pieces[start], start),
        "decoder": _BYTES | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": cut.whole_words,
            "vocab": tokens,
            "merges": merges,
        },
    }
    written = as_json(content)
    try:
        tokenizers.Tokenizer.from_str(written.decode())
    except Exception as error:  # The library raises nothing more specific.
        raise UserError(
            f"{name}: its tokenizer is damaged ({one_line(str(error))}); get it again"
        ) from error
    return written


def _starting(piece: str, token: int) -> dict[str, Any]:
    """The step of a `tokenizer.json` that puts the start token before each text."""
    start = {"SpecialToken": {"id": piece, "type_id": 0}}
    first, second = ({"Sequence": {"id": i, "type_id": n}} for n, i in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, {"SpecialToken": {"id": piece, "type_id": 1}}, second],
        "special_tokens": {piece: {"id": piece, "ids": [token], "tokens": [piece]}},
    }


def _sentencepiece(vocabulary: Vocabulary) -> bytes:
    """A `tokenizer.model`: LLaMA's is of byte pairs, merged in the order of scores."""
    # Imported here because nothing else needs it, and it takes a while.
    from sentencepiece.sentencepiece_model_pb2 import (
        ModelProto,  # pyright: ignore[reportAttributeAccessIssue]
    )

    said, name = vocabulary.fields, vocabulary.name
    scores = _listed(name, said, "scores", float, size=len(vocabulary.pieces))
    model = ModelProto()
    for piece, score, kind in zip(
        vocabulary.pieces, scores, vocabulary.kinds, strict=True
    ):
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(scores)
    trainer.byte_fallback = _BYTE in vocabulary.kinds
    for role, field in _ROLES.items():
        token, short = vocabulary.token(field), role.removesuffix("_token")
        setattr(trainer, f"{short}_id", -1 if token is None else token)
        if token is not None:
            setattr(trainer, f"{short}_piece", vocabulary.pieces[token])
    charsmap = _listed(
        name, {"precompiled_charsmap": []} | dict(said), "precompiled_charsmap", int
    )
    normalizer.name = "user_defined" if charsmap else "identity"
    normalizer.precompiled_charsmap = bytes(byte & 0xFF for byte in charsmap)
    normalizer.add_dummy_prefix = bool(said.get("add_space_prefix", True))
    normalizer.remove_extra_whitespaces = bool(
        said.get("remove_extra_whitespaces", False)
    )
    normalizer.escape_whitespaces = True
    written = model.SerializeToString()
    try:
        SentencePieceProcessor(model_proto=written)
    except RuntimeError as error:
        raise UserError(
            f"{name}: its tokenizer is damaged ({one_line(str(error))}); get it again"
        ) from error
    return written


_WRITERS: dict[str, tuple[str, Callable[[Vocabulary], bytes]]] = {
    "gpt2": ("tokenizer.json", _byte_level),
    "llama": ("tokenizer.model", _sentencepiece),
}
"""Values of `tokenizer.ggml.model` → the file that is written, and what writes it."""


def _added(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The tokens that are special, or were added to the vocabulary, as the library."""
    added = {_CONTROL: True, _UNKNOWN: True, _USER_DEFINED: False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": token, "content": piece, **flags, "special": added[kind]}
        for token, (piece, kind) in enumerate(
            zip(vocabulary.pieces, vocabulary.kinds, strict=True)
        )
        if kind in added
    ]


def _listed(
    name: str, own: Mapping[str, Any], field: str, kind: type, size: int | None = None
) -> list[Any]:
    """A field that is a list with entries of one type, and of one size.

    Raises:
      UserError: it is something else.
    """
    value = own.get(field)
    if (
        not isinstance(value, list)
        or not all(type(entry) is kind for entry in value)
        or size not in (None, len(value))
    ):
        raise UserError(
            f"{name}: its tokenizer's {field} are missing or damaged; get it again"
        )
    return value
