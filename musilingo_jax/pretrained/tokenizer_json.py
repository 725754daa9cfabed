"""A `tokenizer.json`, corrected so that it gives the tokens of the model's training.

The tokenizers library writes two kinds of it that LLaMAs use: byte-level ones (LLaMA 3)
and conversions of a sentencepiece model (LLaMA 1 and 2). Conversions deviate from their
original, in ways that depend on the version of transformers that made them:

    " a"      one space instead of two: sentencepiece puts one before every text, also
              before a text that begins with one
    "a  b"    spaces merged in another order, so that other pieces result
    "</s>"    the end token instead of the four letters, which sentencepiece keeps

`TokenizerJson.cutter` corrects all three.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from musilingo_jax.pretrained.pieces import (
    SPACE,
    byte_level_texts,
    sentencepiece_text,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

# Two of LLaMA's pieces, which identify its vocabulary.
_LLAMA = {SPACE * 2: 259, SPACE: 29871}

Merge = str | list[str]  # "a b" in old files, ["a", "b"] in new ones


@dataclass(frozen=True)
class TokenizerJson:
    """The content of a `tokenizer.json` with byte-pair encoding.

    Attributes:
      content: as the file has it.
      from_sentencepiece: whether it was converted from a sentencepiece model; otherwise
        it is byte-level.
    """

    content: Mapping[str, Any]
    from_sentencepiece: bool

    @classmethod
    def read(cls, path: Path) -> "TokenizerJson":
        """Reads a file.

        Raises:
          UserError: it is not JSON, or is a tokenizer of another kind.
          KeyError, TypeError, AttributeError: it is not a file of the library.
        """
        content = read_json(path)
        kind, decoders = content["model"].get("type"), _decoders(content)
        from_sentencepiece = any(
            step["type"] == "Metaspace" or step.get("pattern") == {"String": SPACE}
            for step in decoders
        )
        byte_level = any(step["type"] == "ByteLevel" for step in decoders)
        if kind != "BPE" or not (from_sentencepiece or byte_level):
            raise UserError(
                f"{path}: its tokenizer cannot be read, because it is of the kind "
                f"{kind}; supported are byte pairs (BPE) of sentencepiece and of "
                "bytes, which LLaMAs have"
            )
        return cls(content, from_sentencepiece)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Piece → token."""
        return self.content["model"]["vocab"]

    @property
    def added(self) -> list[dict[str, Any]]:
        """The entries of added tokens."""
        return self.content.get("added_tokens", [])

    @property
    def prepends_space(self) -> bool:
        """Whether it puts a space before each text, as sentencepiece does."""
        return self.from_sentencepiece and _prepends_space(self.content)

    def texts(self) -> dict[int, bytes]:
        """Token → the text that it stands for, in UTF-8; the unknown token has none."""
        model, tokens = self.content["model"], self.vocabulary
        if self.from_sentencepiece:
            has_bytes = model.get("byte_fallback", False)
            texts = {
                token: sentencepiece_text(piece, has_bytes=has_bytes)
                for piece, token in tokens.items()
            }
        else:
            texts = byte_level_texts(tokens)
        if (unknown := model.get("unk_token")) in tokens:
            texts[tokens[unknown]] = b""
        return texts

    @property
    def prepends_once(self) -> bool:
        """Whether it puts no space before a text that follows a special token."""
        return self.prepends_space and not any(
            step["type"] == "Prepend" or step.get("prepend_scheme") == "always"
            for step in (*_normalizers(self.content), *_pre_tokenizers(self.content))
        )

    def cutter(
        self, special: Collection[str], *, inside: bool = False
    ) -> Callable[[str], list[int]]:
        """A function from a text to its tokens, which never makes special tokens.

        Args:
          special: the spellings of special tokens.
          inside: whether no space is put before a text.
        """
        corrected = _without_specials(self, special)
        if self.from_sentencepiece:
            corrected |= _with_all_spaces(corrected, inside)
            model = corrected["model"]
            if _LLAMA.items() <= self.vocabulary.items():
                merges = _in_llamas_order(model["merges"])
                corrected["model"] = {**model, "merges": merges}
        library = tokenizers.Tokenizer.from_str(json.dumps(corrected))
        # Makes ordinary pieces of the letters of a special token.
        library.encode_special_tokens = True
        return lambda text: library.encode(text, add_special_tokens=False).ids


def _without_specials(file: TokenizerJson, special: Collection[str]) -> dict[str, Any]:
    """The content with no way from a text to a special token, and no padding."""
    added = [
        # sentencepiece has no added tokens, so it never makes them from text.
        {**entry, "special": file.from_sentencepiece or entry["special"]}
        for entry in file.added
    ]
    # Nor may pieces of text be merged into a special token.
    unmade = {*special, *(entry["content"] for entry in added if entry["special"])}
    model = file.content["model"]
    merges = [m for m in model["merges"] if "".join(_halves(m)) not in unmade]
    return {
        **file.content,
        "added_tokens": added,
        "truncation": None,
        "padding": None,
        "model": {**model, "merges": merges},
    }


def _with_all_spaces(content: Mapping[str, Any], inside: bool) -> dict[str, Any]:
    """The keys to change so that spaces are treated as sentencepiece does.

    `Metaspace`, in all its spellings, puts no mark before a text that begins with one,
    and may keep words apart. Instead, a mark is prepended to each text, and all spaces
    become marks.
    """
    splits = _pre_tokenizers(content)
    if not splits or any(step["type"] != "Metaspace" for step in splits):
        return {}
    steps = [
        step
        for step in _normalizers(content)
        if step["type"] != "Prepend" and step.get("content") != SPACE
    ]
    if _prepends_space(content) and not inside:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    normalizer = {"type": "Sequence", "normalizers": steps}
    return {"normalizer": normalizer, "pre_tokenizer": None}


def _in_llamas_order(merges: list[Merge]) -> list[Merge]:
    """LLaMA's merges in the order of its scores.

    LLaMA's pieces of spaces only have a score below all others, so they are merged
    last, and from the left: " /" is "▁", "▁/". Old conversions order merges by score.
    New ones order them by token, and then the first merge of all makes "▁▁", "/".
    """

    def order(merge: Merge) -> tuple[bool, int, int]:
        left, right = _halves(merge)
        if set(left + right) == {SPACE}:
            return True, -len(left), -len(right)
        return False, 0, 0  # Sorting is stable: all others keep their order.

    return sorted(merges, key=order)


def _halves(merge: Merge) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _prepends_space(content: Mapping[str, Any]) -> bool:
    if any(step["type"] == "Prepend" for step in _normalizers(content)):
        return True
    return any(
        step["type"] == "Metaspace"
        # Older files have the second key, newer ones the first, some of them both.
        and step.get("prepend_scheme", "always") != "never"
        and step.get("add_prefix_space", True)
        for step in _pre_tokenizers(content)
    )


def _normalizers(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _steps(content.get("normalizer"), "normalizers")


def _pre_tokenizers(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _steps(content.get("pre_tokenizer"), "pretokenizers")


def _decoders(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _steps(content.get("decoder"), "decoders")


def _steps(stage: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a stage: none, one, or the several of a sequence."""
    if stage is None:
        return []
    return stage[key] if stage["type"] == "Sequence" else [stage]
