"""Text ↔ tokens, exactly as the language model read them in its training.

Two kinds of files are read: `tokenizer.model`, by sentencepiece itself (LLaMA 1 and 2,
Vicuna), and `tokenizer.json`, by the tokenizers library (LLaMA 3, and our embedded
model). If both files exist, `tokenizer.model` takes precedence, because MusiLingo's
adapters were trained with it.

sentencepiece puts a space before every text, also before one that begins with a space,
and keeps a space at the end ("▁" is how it writes them):

    "###Human: <Audio>"            ▁### Human : ▁< Audio >
    "</Audio> ###Assistant: "      ▁</ Audio > ▁### Ass istant : ▁
    " Jazz"                        ▁▁ Jazz

`pretrained/tokenizer_json.py` corrects a `tokenizer.json` that was converted from such
a model, so that both files give the same tokens.

Special tokens are never made from text: if a user types `</s>` in a question, these are
four letters, as in sentencepiece, and do not end the conversation. (The tokenizer class
that MusiLingo used would have made the end token of them; its prompts and corpora have
no such text.) Prompts take theirs from `Tokenizer.special`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int
from sentencepiece import SentencePieceProcessor

from musilingo_jax.pretrained.pieces import sentencepiece_text
from musilingo_jax.pretrained.special_tokens import SpecialTokens
from musilingo_jax.pretrained.tokenizer_json import TokenizerJson
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

SENTENCEPIECE, LIBRARY = "tokenizer.model", "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A vocabulary, and how to cut text into its tokens.

    Attributes:
      name: the folder it was read from.
      start: the token that every sequence begins with, `<s>`; None if it has none.
      end: the token that ends a sequence, `</s>`; None if it has none.
      ends: all tokens that end a sequence, `end` included.
      texts: token → its text in UTF-8: a part of a letter, letters, or nothing if the
        token is special.
      special: spelling → token, of special and added tokens.
      starts_plainly: whether its files say that there is no start token.
      cut: text → tokens, without special ones.
      cut_inside: the same for text that follows a special token, before which some
        tokenizers put no space.
      leads: whether `cut` puts a space before each text.
    """

    name: str
    start: int | None
    end: int | None
    ends: tuple[int, ...]
    texts: Mapping[int, bytes]
    special: Mapping[str, int]
    starts_plainly: bool
    cut: Callable[[str], list[int]]
    cut_inside: Callable[[str], list[int]]
    leads: bool

    @cached_property
    def size(self) -> int:
        """The largest token, plus one."""
        return max(self.texts) + 1

    def encode(self, text: str, *, after_special: bool = False) -> list[int]:
        """The tokens of a text, without special ones before, after or within it.

        Args:
          text: the text.
          after_special: whether it follows a special token.

        Raises:
          UserError: the text cannot be written in UTF-8, because it was read from
            another encoding.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text {text[:40]!r} cannot be read: character number "
                f"{error.start + 1} is not valid; write it in UTF-8"
            ) from error
        cut = self.cut_inside if after_special else self.cut
        return cut(text) if text else []

    def spell(self, tokens: Iterable[int] | Int[np.ndarray, " tokens"]) -> bytes:
        """The text of tokens in UTF-8; special and unknown tokens have none."""
        return b"".join(self.texts.get(int(token), b"") for token in tokens)

    def decode(self, tokens: Iterable[int] | Int[np.ndarray, " tokens"]) -> str:
        """The text of tokens.

        An incomplete letter becomes "\N{REPLACEMENT CHARACTER}".
        """
        text = self.spell(tokens).decode(errors="replace")
        return text.removeprefix(" ") if self.leads else text


def load(folder: Path) -> Tokenizer:
    """The tokenizer in a folder. No code of the folder is run.

    Raises:
      UserError: the folder has none; or it cannot be read, is of an unsupported kind,
        or its files contradict each other.
    """
    has_library = (folder / LIBRARY).is_file()
    try:
        if (folder / SENTENCEPIECE).is_file():
            if not _is_tiktoken(folder / SENTENCEPIECE):
                return _from_sentencepiece(folder)
            if not has_library:
                raise UserError(
                    f"{folder / SENTENCEPIECE}: is a file of tiktoken, not of "
                    f"sentencepiece; copy the {LIBRARY} of the same model there"
                )
        if has_library:
            return _from_library(folder)
    except UserError:
        raise
    except Exception as error:  # Parsers raise anything, and a file may lack anything.
        reason = f"{type(error).__name__} {error}".strip().split("\n")[0]
        raise UserError(f"{folder}: its tokenizer cannot be read: {reason}") from error
    raise UserError(
        f"{folder}: has no tokenizer; copy the {SENTENCEPIECE} or {LIBRARY} of its "
        "language model there"
    )


def _from_sentencepiece(folder: Path) -> Tokenizer:
    path = folder / SENTENCEPIECE
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: its tokenizer cannot be read, because the file is not one of "
            "sentencepiece or is incomplete; copy it from the language model's source"
        ) from error
    # Some models name their added tokens only there.
    library = read_json(folder / LIBRARY) if (folder / LIBRARY).is_file() else {}
    special = SpecialTokens.read(folder, library.get("added_tokens", []))
    texts, tokens = {}, {}
    for token in range(model.vocab_size()):
        piece = model.id_to_piece(token)
        tokens[piece] = token
        if model.is_control(token) or model.is_unknown(token):
            texts[token] = b""
        else:
            texts[token] = sentencepiece_text(piece, has_bytes=model.is_byte(token))
    start, end = (None if own < 0 else own for own in (model.bos_id(), model.eos_id()))
    leads = model.normalize("a") != "a"
    control = {model.id_to_piece(t) for t in tokens.values() if model.is_control(t)}
    inside = model.encode if special.legacy else _inside_of(model)
    return _assemble(
        special, tokens, texts, start, end, control, model.encode, inside, leads
    )


def _inside_of(model: SentencePieceProcessor) -> Callable[[str], list[int]]:
    """How to cut text without a space before it, which the library always puts there.

    Behind a piece that nothing is merged with, there is none.
    """
    mark = model.id_to_piece(model.unk_id())
    taken = len(model.encode(mark))
    return lambda text: model.encode(mark + text)[taken:]


def _from_library(folder: Path) -> Tokenizer:
    library = TokenizerJson.read(folder / LIBRARY)
    special = SpecialTokens.read(folder, library.added)
    start, end = None, None
    if library.from_sentencepiece:  # Byte-level vocabularies have no usual spellings.
        start, end = library.vocabulary.get("<s>"), library.vocabulary.get("</s>")
    cut = library.cutter(special.spellings)
    return _assemble(
        special,
        library.vocabulary,
        library.texts(),
        start,
        end,
        control=(),
        cut=cut,
        cut_inside=library.cutter(special.spellings, inside=True)
        if library.prepends_once
        else cut,
        leads=library.prepends_space,
    )


def _assemble(
    special: SpecialTokens,
    vocabulary: Mapping[str, int],
    texts: dict[int, bytes],
    start: int | None,
    end: int | None,
    control: Iterable[str],
    cut: Callable[[str], list[int]],
    cut_inside: Callable[[str], list[int]],
    leads: bool,
) -> Tokenizer:
    """Completes a tokenizer's own file with what the small files beside it say."""
    tokens = dict(vocabulary)
    tokens |= {spelling: token for token, spelling in special.added.items()}
    special.fill(texts, tokens)
    start = special.token("bos_token", tokens, start)
    end = special.token("eos_token", tokens, end)
    texts |= {token: b"" for token in (start, end) if token is not None}
    spelled = {*special.spellings, *special.added.values(), *control} & tokens.keys()
    return Tokenizer(
        name=str(special.folder),
        start=start,
        end=end,
        ends=special.ends(texts, end),
        texts=texts,
        special={spelling: tokens[spelling] for spelling in spelled if spelling},
        starts_plainly=start is None and special.no_start,
        cut=cut,
        cut_inside=cut_inside,
        leads=leads,
    )


def _is_tiktoken(path: Path) -> bool:
    """Whether a `tokenizer.model` is LLaMA 3's own: lines of base64 and a number."""
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", file.read(256)) is not None
