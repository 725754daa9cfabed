"""The special and added tokens that the small files beside a tokenizer name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

# The decoding settings of the transformers library.
GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class SpecialTokens:
    """What a folder says about tokens besides the vocabulary itself.

    Attributes:
      folder: the folder, for messages.
      roles: role → spelling: {"bos_token": "<s>", …}.
      spellings: the spellings of all special tokens.
      added: token → spelling, of all tokens that were added to the vocabulary.
      model_roles: role → tokens, from the `config.json` of the language model.
      generation_ends: the end tokens in `generation_config.json`.
      no_start: whether they say that there is no start token.
      legacy: whether sentencepiece puts a space before text that follows a special
        token, too, as the transformers library did at first.
    """

    folder: Path
    roles: Mapping[str, str]
    spellings: frozenset[str]
    added: Mapping[int, str]
    model_roles: Mapping[str, list[Any]]
    generation_ends: list[Any]
    no_start: bool
    legacy: bool

    @classmethod
    def read(cls, folder: Path, listed: list[dict[str, Any]]) -> "SpecialTokens":
        """Reads them from the files of a folder.

        Args:
          folder: holds some of `tokenizer_config.json`, `special_tokens_map.json`,
            `added_tokens.json`, `config.json` and `generation_config.json`.
          listed: the `added_tokens` of its `tokenizer.json`.

        Raises:
          UserError: a file is not a JSON object, or a link to one that is gone.
          ValueError, TypeError, AttributeError, KeyError: a file holds something that
            the transformers library does not write there.
        """

        def read(name: str) -> dict[str, Any]:
            return read_json(folder / name) if os.path.lexists(folder / name) else {}

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
        # The transformers library gives the files this precedence.
        if "added_tokens_decoder" not in config:
            config = config | read("special_tokens_map.json")
        named = {
            role: [_spelling(entry) for entry in _entries(value)]
            for role, value in config.items()
            if role.endswith(("_token", "_special_tokens"))
            and not isinstance(value, bool)  # "add_bos_token" names no token.
        }
        # The first conversions of LLaMA have "" where "<s>" should be.
        roles = {role: names[0] for role, names in named.items() if names and names[0]}
        special = {entry["content"] for entry in listed if entry.get("special")}
        model = read(CONFIG)
        return cls(
            folder=folder,
            roles=roles,
            spellings=frozenset(special.union(*named.values())),
            added=added,
            model_roles={
                role: _entries(model.get(f"{role}_id"))
                for role in ("bos_token", "eos_token")
            },
            generation_ends=_entries(read(GENERATION_CONFIG).get("eos_token_id")),
            no_start=config.get("bos_token", "") is None,
            legacy=config.get("legacy") is not False,
        )

    def token(
        self, role: str, tokens: Mapping[str, int], own: int | None
    ) -> int | None:
        """The token of a role: as these files name it, else `own`, else `config.json`.

        `config.json` comes last because the first conversions of LLaMA have 0 and 1
        there for the tokens that are 1 and 2.

        Args:
          role: "bos_token" or "eos_token".
          tokens: spelling → token, of the whole vocabulary.
          own: what the tokenizer's own file says; None if it does not say.

        Raises:
          UserError: the vocabulary lacks the token of that name.
        """
        if spelling := self.roles.get(role):
            if spelling not in tokens:
                raise UserError(
                    f"{self.folder}: its tokenizer_config.json or special_tokens_map"
                    f".json names {spelling!r} as {role}, which the tokenizer does not "
                    "have; copy all these files from the same model"
                )
            return tokens[spelling]
        if own is not None or (role == "bos_token" and self.no_start):
            return own
        # LLaMA 3.1 lists three end tokens, the usual one first.
        first = next(iter(self.model_roles[role]), None)
        return first if first in tokens.values() else None

    def ends(self, texts: Mapping[int, bytes], end: int | None) -> tuple[int, ...]:
        """All tokens that end a text; LLaMA 3.1 has three.

        Files name them by number, and some name a wrong one. So only special tokens
        count, those whose text is empty.
        """
        listed = [*self.model_roles["eos_token"], *self.generation_ends]
        special = [token for token in listed if texts.get(token) == b""]
        return tuple(sorted({*special, *([] if end is None else [end])}))

    def fill(self, texts: dict[int, bytes], tokens: Mapping[str, int]) -> None:
        """Adds the text of each added token to `texts`; a special token has none."""
        for token, spelling in self.added.items():
            texts.setdefault(token, spelling.encode())
        for spelling in self.spellings & tokens.keys():
            texts[tokens[spelling]] = b""


def _entries(value: Any) -> list[Any]:
    """The values of a key: none, one, several, or several by name."""
    if value is None:
        return []
    if isinstance(value, dict) and "content" not in value:
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _spelling(entry: str | dict[str, Any]) -> str:
    return entry["content"] if isinstance(entry, dict) else entry
