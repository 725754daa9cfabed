"""What the small files beside a tokenizer say: special tokens, and added ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

# How the transformers library lets a model speak.
GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that are more, or other, than text.

    Attributes:
      folder: where they are told of.
      roles: role → spelling: {"bos_token": "<s>", …}.
      spellings: of all special tokens.
      added: token → spelling, of all that were added to a vocabulary.
    """

    folder: Path
    roles: Mapping[str, str]
    spellings: frozenset[str]
    added: Mapping[int, str]

    @classmethod
    def read(cls, folder: Path, listed: list[dict[str, Any]]) -> "SpecialTokens":
        """Reads them from the files of a folder.

        Args:
          folder: with `tokenizer_config.json`, `special_tokens_map.json` and
            `added_tokens.json`, as far as they are there.
          listed: the `added_tokens` of its `tokenizer.json`.

        Raises:
          UserError: a file is no JSON object.
          ValueError, TypeError, AttributeError, KeyError: it holds something else than
            the transformers library writes there.
        """

        def read(name: str) -> dict[str, Any]:
            return read_json(folder / name) if (folder / name).is_file() else {}

        config = read("tokenizer_config.json")
        listed = [
            *listed,
            *(
                {"content": spelling, "id": token}
                for spelling, token in read("added_tokens.json").items()
            ),
            *(
                {**entry, "id": int(token)}
                for token, entry in config.get("added_tokens_decoder", {}).items()
            ),
        ]
        added = {entry["id"]: entry["content"] for entry in listed}
        if wrong := [token for token in added if not isinstance(token, int)]:
            raise ValueError(f"{wrong[0]!r} is given as the number of a token")
        # Which file has the last word is as in the transformers library.
        if "added_tokens_decoder" not in config:
            config = config | read("special_tokens_map.json")
        named = {
            role: [_spelling(entry) for entry in _entries(value)]
            for role, value in config.items()
            if role.endswith(("_token", "_special_tokens"))
            and not isinstance(value, bool)  # "add_bos_token" names none.
        }
        # The first conversions of LLaMA name "" where there should be "<s>".
        roles = {role: names[0] for role, names in named.items() if names and names[0]}
        special = {entry["content"] for entry in listed if entry.get("special")}
        return cls(folder, roles, frozenset(special.union(*named.values())), added)

    def token(
        self, role: str, tokens: Mapping[str, int], own: int | None
    ) -> int | None:
        """The token of a role: as these files name it, else `own`, else `config.json`.

        The last is the least to be trusted: the first conversions of LLaMA have 0 and 1
        there for the tokens that are 1 and 2.

        Args:
          role: "bos_token" or "eos_token".
          tokens: spelling → token, of the whole vocabulary.
          own: what the tokenizer's own file says, if it does.

        Raises:
          UserError: the vocabulary lacks the token of that name.
        """
        if spelling := self.roles.get(role):
            if spelling not in tokens:
                raise UserError(
                    f"{self.folder}: its tokenizer_config.json or special_tokens_map"
                    f".json names {spelling!r} as {role}, which is none of the "
                    "tokenizer's tokens; copy all these files from one place"
                )
            return tokens[spelling]
        if own is not None or not (self.folder / CONFIG).is_file():
            return own
        said = read_json(self.folder / CONFIG).get(f"{role}_id")
        if isinstance(said, list):  # LLaMA 3.1 ends in three ways, this one first.
            said = next(iter(said), None)
        return said if said in tokens.values() else None

    def ends(self, texts: Mapping[int, bytes], end: int | None) -> tuple[int, ...]:
        """All tokens that end a text; LLaMA 3.1 has three.

        Files name them by number, and some a wrong one: only special tokens, which
        write nothing, are taken.
        """
        said = []
        for name in (CONFIG, GENERATION_CONFIG):
            if (self.folder / name).is_file():
                found = read_json(self.folder / name).get("eos_token_id")
                said += found if isinstance(found, list) else [found]
        special = [token for token in said if texts.get(token) == b""]
        return tuple(sorted({*special, *([] if end is None else [end])}))

    def fill(self, texts: dict[int, bytes], tokens: Mapping[str, int]) -> None:
        """Adds what added tokens write to `texts`; special ones write nothing."""
        for token, spelling in self.added.items():
            texts.setdefault(token, spelling.encode())
        for spelling in self.spellings & tokens.keys():
            texts[tokens[spelling]] = b""


def _entries(value: Any) -> list[Any]:
    """The tokens of a role: none, one, several, or several by name."""
    if value is None:
        return []
    if isinstance(value, dict) and "content" not in value:
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _spelling(entry: str | dict[str, Any]) -> str:
    return entry["content"] if isinstance(entry, dict) else entry
