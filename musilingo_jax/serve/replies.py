"""What clients get, in the protocol's form."""

from typing import Literal

from typing_extensions import TypedDict  # Pydantic needs this one before Python 3.12.


class PromptDetails(TypedDict):
    """Tokens of the prompt that were read before, for an earlier turn or question."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens that were read and written."""

    prompt_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens: int
    total_tokens: int


class Said(TypedDict):
    """An answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(TypedDict):
    """An answer, and how it ended."""

    index: int
    message: Said
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Completion(TypedDict):
    """The answers to one request.

    `notes` are an addition to the protocol: what was heard or read of the request only
    in part, a sentence each.
    """

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    notes: list[str]


class Model(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """All models, of which there is one."""

    object: Literal["list"]
    data: list[Model]


class Embedding(TypedDict):
    """The vector of a song, as numbers, or as float32 (little-endian) in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Songs have no tokens of text."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """The vectors of all songs of a request."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


class Health(TypedDict):
    """Whether questions are taken."""

    status: Literal["ok", "warming", "ending"]
    model: str


class ErrorDetail(TypedDict):
    """Why a request is refused."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    """A refusal."""

    error: ErrorDetail
