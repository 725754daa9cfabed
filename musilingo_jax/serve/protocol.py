"""What clients send: the parts of OpenAI's protocol that a model of music can answer.

Parameters that change an answer and that this server does not have are refused, unless
their value asks for what it does anyway (`n: 1`, `frequency_penalty: 0`). Those that
only describe the caller are taken and not used.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from musilingo_jax.serve.errors import Refusal

MOST_CHOICES = 8
MOST_STOPS = 4
MOST_INPUTS = 32
# More songs, turns or letters are refused before any of them is looked at.
_MOST_MESSAGES = 256
_MOST_PARTS = 64
_MOST_LETTERS = 32_768

Text = Annotated[str, Field(max_length=_MOST_LETTERS)]


class Strict(BaseModel):
    """An object without unknown keys, and without numbers that are texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    """A text within a message."""

    type: Literal["text"]
    text: Text


class InputAudio(Strict):
    """A song in base64. Its content decides what it is, whatever `format` says."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus"]


class InputAudioPart(Strict):
    """A song within a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(Strict):
    """A `data:` URL, or one of a host that the server was told to allow."""

    url: str


class AudioUrlPart(Strict):
    """A song within a message, by its address."""

    type: Literal["audio_url"]
    audio_url: AudioUrl


SongPart = InputAudioPart | AudioUrlPart
Part = Annotated[TextPart | InputAudioPart | AudioUrlPart, Field(discriminator="type")]


class SystemMessage(Strict):
    """Instructions for the whole conversation."""

    role: Literal["system", "developer"]
    content: Text | Annotated[list[TextPart], Field(max_length=_MOST_PARTS)]
    name: str | None = None


class UserMessage(Strict):
    """A question, with the songs that come with it."""

    role: Literal["user"]
    content: Text | Annotated[list[Part], Field(max_length=_MOST_PARTS)]
    name: str | None = None


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=_MOST_PARTS)]
    name: str | None = None
    refusal: None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")
]


class StreamOptions(Strict):
    """What a stream holds besides the answer."""

    include_usage: bool = False


# Parameter → the values that ask for nothing, and why others are refused.
_NOT_HERE: dict[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((None,), "answers are text"),
    "modalities": ((None, ["text"]), 'answers are text: leave it out, or ["text"]'),
    "tools": ((None, []), "the model calls no tools"),
    "tool_choice": ((None, "none", "auto"), "the model calls no tools"),
    "functions": ((None, []), "the model calls no functions"),
    "function_call": ((None, "none", "auto"), "the model calls no functions"),
    "response_format": ((None, {"type": "text"}), "answers are plain text"),
    "logprobs": ((None, False), "probabilities are not returned"),
    "top_logprobs": ((None, 0), "probabilities are not returned"),
    "logit_bias": ((None, {}), "tokens cannot be weighted"),
    "frequency_penalty": ((None, 0), "repetition is not penalised"),
    "presence_penalty": ((None, 0), "repetition is not penalised"),
    "store": ((None, False), "nothing is stored"),
    "prediction": ((None,), "answers are not predicted"),
    "web_search_options": ((None,), "the model searches nothing"),
    "reasoning_effort": ((None, "none"), "the model does not reason first"),
}


class ChatRequest(Strict):
    """A request of `/v1/chat/completions`.

    `user`, `metadata`, `safety_identifier` and `service_tier` are taken and not used.
    """

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = 1
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_asks_for_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, (neutral, reason) in _NOT_HERE.items():
            if name in given and not any(_same(given[name], v) for v in neutral):
                raise Refusal(
                    400,
                    f"{name} is not supported: {reason}",
                    param=name,
                    code="unsupported_parameter",
                )
        return {key: value for key, value in given.items() if key not in _NOT_HERE}

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > MOST_STOPS:
            raise ValueError(f"give at most {MOST_STOPS} texts")
        if not all(0 < len(text) <= 64 for text in texts):
            raise ValueError("each text must have 1 to 64 characters")
        return stop

    @model_validator(mode="after")
    def _check_together(self) -> "ChatRequest":
        if self.stream_options is not None and not self.stream:
            raise Refusal(
                400,
                "stream_options is for stream: true only",
                param="stream_options",
                code="invalid_value",
            )
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise Refusal(
                400,
                "max_tokens and max_completion_tokens mean the same and differ: give "
                "one of them",
                param="max_tokens",
                code="invalid_value",
            )
        return self

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts that end an answer, besides the model's own."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most_tokens(self) -> int | None:
        """Tokens of an answer at most; None for the model's own number."""
        return self.max_completion_tokens or self.max_tokens


class EmbeddingsRequest(Strict):
    """A request of `/v1/embeddings`: songs as `data:` URLs, or as parts of messages."""

    model: str
    input: (
        str
        | SongPart
        | Annotated[list[str | SongPart], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    user: str | None = None

    @property
    def songs(self) -> list[SongPart]:
        """The inputs, each as a part."""
        inputs = self.input if isinstance(self.input, list) else [self.input]
        return [_as_part(one) if isinstance(one, str) else one for one in inputs]


def _as_part(url: str) -> AudioUrlPart:
    return AudioUrlPart(type="audio_url", audio_url=AudioUrl(url=url))


def _same(value: Any, neutral: Any) -> bool:
    """Whether two values are equal; in Python, `False == 0`."""
    if isinstance(value, bool) != isinstance(neutral, bool):
        return False
    return value == neutral
