"""What may be changed in a conversation, for the answers to come."""

from typing import Any

from musilingo_jax.answering.config import Decoding
from musilingo_jax.answering.speaker import Speaker
from musilingo_jax.runtime.errors import UserError

_NUMBERS: dict[str, type] = {
    "temperature": float,
    "top_p": float,
    "max_new_tokens": int,
    "seed": int,
    "turns": int,
}
SETTINGS = (*_NUMBERS, "stop")
"""Names of settings: those of `Decoding`; "turns", the number of earlier turns that the
model is shown at most."""


class ConversationSettings:
    """The settings of one conversation."""

    def __init__(self, model: Speaker):
        """The model's own settings."""
        self._model = model
        self._changed: dict[str, Any] = {}

    def set(self, name: str, value: Any) -> None:
        """Changes a setting.

        Args:
          name: of `SETTINGS`.
          value: a number, or its text; of "stop" a text or a list of them.

        Raises:
          UserError: there is no such setting, or the value is impossible.
        """
        if name not in SETTINGS:
            raise UserError(
                f"there is no setting {name!r}: choose among {', '.join(SETTINGS)}"
            )
        kind = _NUMBERS.get(name)
        texts = [value] if isinstance(value, str) else value
        if name == "stop" and not (
            isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts)
        ):
            raise UserError(f"stop is {value!r}: give a text, or a list of them")
        try:
            value = value if kind is None else kind(value)
        except (TypeError, ValueError, OverflowError):
            what = "a whole number" if kind is int else "a number"
            raise UserError(f"{name} is {value!r}: give {what}") from None
        if name == "turns":
            if value < 0:
                raise UserError(f"turns is {value}: it must be at least 0")
        else:
            one: Any = {name: value}
            self._model.decoding(**one)
        self._changed[name] = value

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that were changed."""
        return dict(self._changed)

    @property
    def decoding(self) -> Decoding:
        """Those of them that say how an answer is decoded."""
        found: Any = {k: v for k, v in self._changed.items() if k != "turns"}
        return found

    @property
    def turns(self) -> int | None:
        """How many earlier turns the model is shown at most; None for all that fit."""
        return self._changed.get("turns", self._model.usage.earlier_turns)
