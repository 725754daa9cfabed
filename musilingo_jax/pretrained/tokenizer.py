"""Text ↔ tokens, as the language model read them when it was made.

Two kinds of files are read: `tokenizer.model`, by sentencepiece itself (LLaMA 1 and 2,
Vicuna), and `tokenizer.json`, by the tokenizers library (LLaMA 3, and our embedded
model). Where both are there, sentencepiece has the word: MusiLingo's adapters were
trained behind it.

sentencepiece puts a space before every text, also before one that begins with a space,
and keeps the space at the end ("▁" is how it writes them):

    "###Human: <Audio>"            ▁### Human : ▁< Audio >
    "</Audio> ###Assistant: "      ▁</ Audio > ▁### Ass istant : ▁
    " Jazz"                        ▁▁ Jazz

A `tokenizer.json` made from such a model often lacks the last of these, and if a recent
transformers library made it, cuts several spaces in another way; it is put right, so
that both files give the same tokens.

Special tokens are never made from text: a question in which somebody typed `</s>` holds
these four letters, as sentencepiece has it, and does not end the conversation. (The
tokenizer class that MusiLingo used would have made the end token of them; its prompts
and corpora have no such text.)
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from sentencepiece import SentencePieceProcessor

from musilingo_jax.pretrained.special_tokens import SpecialTokens
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

SENTENCEPIECE, LIBRARY = "tokenizer.model", "tokenizer.json"
# How sentencepiece writes a space.
SPACE = "▁"
# Two of LLaMA's pieces, by which its vocabulary is known.
_LLAMA = {SPACE * 2: 259, SPACE: 29871}


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A vocabulary, and how to cut text into it.

    Attributes:
      name: the folder it was read from.
      start: the token that every sequence begins with, `<s>`; None if it has none.
      end: the token that ends a sequence, `</s>`; None if it has none.
      ends: all tokens that do, that one included.
      texts: what each token writes, in UTF-8: part of a letter, letters, or nothing for
        special tokens.
      cut: a text's tokens, without special ones.
      leads: whether `cut` puts a space before each text that is none of the text's.
    """

    name: str
    start: int | None
    end: int | None
    ends: tuple[int, ...]
    texts: Mapping[int, bytes]
    cut: Callable[[str], list[int]]
    leads: bool

    @cached_property
    def size(self) -> int:
        """The largest token, plus one."""
        return max(self.texts) + 1

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones before, after or within it.

        Raises:
          UserError: the text was not typed in a known encoding.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text {text[:40]!r} cannot be read, for its character number "
                f"{error.start + 1} is none: write it in UTF-8"
            ) from error
        return self.cut(text) if text else []

    def spell(self, tokens: Iterable[int]) -> bytes:
        """What tokens write, in UTF-8; special and unknown ones write nothing."""
        return b"".join(self.texts.get(int(token), b"") for token in tokens)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens.

        Where a letter is not complete, "\N{REPLACEMENT CHARACTER}" stands for it.
        """
        text = self.spell(tokens).decode(errors="replace")
        return text.removeprefix(" ") if self.leads else text


def load(folder: Path) -> Tokenizer:
    """The tokenizer whose files lie in a folder. No code from there is run.

    Raises:
      UserError: there is none, it cannot be read, it is of a kind that is not known
        here, or its files contradict each other.
    """
    has_library = (folder / LIBRARY).is_file()
    try:
        if (folder / SENTENCEPIECE).is_file():
            if not _is_tiktoken(folder / SENTENCEPIECE):
                return _with_sentencepiece(folder)
            if not has_library:
                raise UserError(
                    f"{folder / SENTENCEPIECE}: is a file of tiktoken, not of "
                    f"sentencepiece; copy the {LIBRARY} of the same model there"
                )
        if has_library:
            return _with_library(folder)
    except UserError:
        raise
    except Exception as error:  # Whatever parsers raise, and whatever a file may lack.
        reason = f"{type(error).__name__} {error}".strip().split("\n")[0]
        raise UserError(f"{folder}: its tokenizer cannot be read: {reason}") from error
    raise UserError(
        f"{folder}: has no tokenizer; copy the {SENTENCEPIECE} or {LIBRARY} that "
        "belongs to the language model there"
    )


def _with_sentencepiece(folder: Path) -> Tokenizer:
    path = folder / SENTENCEPIECE
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: its tokenizer cannot be read, for this is no whole file of "
            "sentencepiece; copy it anew"
        ) from error
    # Only to know of added tokens, which some tell nowhere else.
    library = read_json(folder / LIBRARY) if (folder / LIBRARY).is_file() else {}
    special = SpecialTokens.read(folder, library.get("added_tokens", []))
    texts, tokens = {}, {}
    for token in range(model.vocab_size()):
        piece = model.id_to_piece(token)
        tokens[piece] = token
        if model.is_control(token) or model.is_unknown(token):
            texts[token] = b""
        else:
            texts[token] = _written_by_piece(piece, bytewise=model.is_byte(token))
    start, end = (None if own < 0 else own for own in (model.bos_id(), model.eos_id()))
    return _assemble(
        special, tokens, texts, start, end, model.encode, model.normalize("a") != "a"
    )


def _with_library(folder: Path) -> Tokenizer:
    said = read_json(folder / LIBRARY)
    added, model = said.get("added_tokens", []), said["model"]
    decoders = _steps(said, "decoder", "decoders")
    # Made from a sentencepiece model, or else byte-level, as LLaMA 3's.
    pieces = any(
        step["type"] == "Metaspace" or step.get("pattern") == {"String": SPACE}
        for step in decoders
    )
    if model.get("type") != "BPE" or not (
        pieces or any(step["type"] == "ByteLevel" for step in decoders)
    ):
        raise UserError(
            f"{folder / LIBRARY}: its tokenizer cannot be read, for it is of the kind "
            f"{model.get('type')}; known are byte pairs (BPE) of sentencepiece and of "
            "bytes, as LLaMAs have them"
        )
    special = SpecialTokens.read(folder, added)
    said["truncation"] = said["padding"] = None
    if pieces:
        _put_spaces_right(said)
        if _LLAMA.items() <= model["vocab"].items():
            model["merges"] = _spaces_last(model["merges"])
    for entry in added:
        # sentencepiece knows of no added tokens, so it never makes them from text.
        entry["special"] = pieces or entry["special"]
    # Nor may their letters be merged into special tokens.
    unmade = special.spellings | {e["content"] for e in added if e["special"]}
    model["merges"] = [
        merge for merge in model["merges"] if "".join(_halves(merge)) not in unmade
    ]
    library = tokenizers.Tokenizer.from_str(json.dumps(said))
    library.encode_special_tokens = True  # That is, as the text that they look like.

    tokens = model["vocab"]
    if pieces:
        bytewise = model.get("byte_fallback", False)
        texts = {
            token: _written_by_piece(piece, bytewise=bytewise)
            for piece, token in tokens.items()
        }
    else:
        texts = _written_by_bytes(tokens)
    if (unknown := model.get("unk_token")) in tokens:
        texts[tokens[unknown]] = b""
    own = [tokens.get(spelling) if pieces else None for spelling in ("<s>", "</s>")]
    return _assemble(
        special,
        tokens,
        texts,
        *own,
        cut=lambda text: library.encode(text, add_special_tokens=False).ids,
        leads=pieces and _prepends(said),
    )


def _assemble(
    special: SpecialTokens,
    vocabulary: Mapping[str, int],
    texts: dict[int, bytes],
    start: int | None,
    end: int | None,
    cut: Callable[[str], list[int]],
    leads: bool,
) -> Tokenizer:
    """Adds what the small files say to what a tokenizer's own file does."""
    tokens = dict(vocabulary)
    tokens |= {spelling: token for token, spelling in special.added.items()}
    special.fill(texts, tokens)
    start = special.token("bos_token", tokens, start)
    end = special.token("eos_token", tokens, end)
    texts |= {token: b"" for token in (start, end) if token is not None}
    ends = special.ends(texts, end)
    return Tokenizer(str(special.folder), start, end, ends, texts, cut, leads)


def _put_spaces_right(said: dict[str, Any]) -> None:
    """Lets a converted sentencepiece model treat spaces as sentencepiece does.

    `Metaspace`, in all its spellings, puts no mark before a text that begins with one,
    and may keep the words apart. Here all spaces become marks, and one comes first.
    """
    cuts = _steps(said, "pre_tokenizer", "pretokenizers")
    if not cuts or any(step["type"] != "Metaspace" for step in cuts):
        return
    steps = [
        step
        for step in _steps(said, "normalizer", "normalizers")
        if step["type"] != "Prepend" and step.get("content") != SPACE
    ]
    if _prepends(said):
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    said["normalizer"] = {"type": "Sequence", "normalizers": steps}
    said["pre_tokenizer"] = None


def _spaces_last(merges: list[Any]) -> list[Any]:
    """LLaMA's merges in the order of its scores.

    LLaMA's pieces of nothing but spaces have a score below all others, so that they are
    merged last, and from the left: " /" is "▁", "▁/". Converted files order merges by
    score if they are old, but by the piece's number if they are new, and then the first
    of all makes "▁▁", "/" of it.
    """

    def order(merge: Any) -> tuple[int, int]:
        left, right = _halves(merge)
        if set(left + right) == {SPACE}:
            return -len(left), -len(right)
        return -len(merges), 0

    return sorted(merges, key=order)


def _halves(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _prepends(said: dict[str, Any]) -> bool:
    """Whether a converted sentencepiece model puts a space before a text."""
    if any(
        step["type"] == "Prepend" for step in _steps(said, "normalizer", "normalizers")
    ):
        return True
    return any(
        step["type"] == "Metaspace"
        # Older files have the second key, newer ones the first, some of them both.
        and step.get("prepend_scheme", "always") != "never"
        and step.get("add_prefix_space", True)
        for step in _steps(said, "pre_tokenizer", "pretokenizers")
    )


def _steps(said: dict[str, Any], part: str, key: str) -> list[dict[str, Any]]:
    """The steps of a part of a `tokenizer.json`: several, one or none."""
    found = said.get(part)
    if found is None:
        return []
    return found[key] if found["type"] == "Sequence" else [found]


def _written_by_piece(piece: str, *, bytewise: bool) -> bytes:
    """What a piece of sentencepiece writes: "▁a" writes " a", "<0x0A>" a line's end."""
    if bytewise and (byte := re.fullmatch("<0x([0-9A-F]{2})>", piece)):
        return bytes.fromhex(byte[1])
    return piece.replace(SPACE, " ").encode()


def _written_by_bytes(tokens: Mapping[str, int]) -> dict[int, bytes]:
    """What byte-level pieces write: each of their letters is one byte.

    Bytes that print are written as themselves, the others as the letters from 256 on,
    so that "Ġ" is the space. From GPT-2 (Radford et al. 2019).
    """
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(prints))
    bytes_of = {chr(byte): byte for byte in prints}
    bytes_of |= {chr(256 + place): byte for place, byte in enumerate(others)}
    return {
        token: bytes(map(bytes_of.__getitem__, piece))
        if bytes_of.keys() >= set(piece)
        else piece.encode()  # One that was put there as it is.
        for piece, token in tokens.items()
    }


def _is_tiktoken(path: Path) -> bool:
    """Whether a `tokenizer.model` is LLaMA 3's own: lines of base64 and a number."""
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", file.read(256)) is not None
