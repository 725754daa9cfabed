"""MusiLingo in JAX: ask questions of music.

    import musilingo_jax as ml

    model = ml.load()                  # the embedded model; or a run, a name …
    model.ask("song.mp3", "What is the tempo?")
    model.caption("song.mp3")
    for piece in model.stream("song.mp3", "Which key is it in?"):
        print(piece, end="")

Nothing that takes time is imported before it is used.
"""

from typing import TYPE_CHECKING, Any

from musilingo_jax.runtime import start_up

if TYPE_CHECKING:
    from musilingo_jax.answering.conversation import Conversation
    from musilingo_jax.answering.excerpt import Excerpt
    from musilingo_jax.answering.live_batch import QueueFull
    from musilingo_jax.answering.model import Model
    from musilingo_jax.runtime.errors import UserError

    load = Model.load

__version__ = "0.1.0"
__all__ = ["Conversation", "Excerpt", "Model", "QueueFull", "UserError", "load"]

start_up.handle_signals()

_FROM = {
    "Conversation": "musilingo_jax.answering.conversation",
    "Excerpt": "musilingo_jax.answering.excerpt",
    "Model": "musilingo_jax.answering.model",
    "QueueFull": "musilingo_jax.answering.live_batch",
    "UserError": "musilingo_jax.runtime.errors",
}


def __getattr__(name: str) -> Any:
    """Imports what the API consists of, when it is first asked for."""
    if name == "load":
        return __getattr__("Model").load
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    """The names of the API."""
    return sorted({*globals(), *__all__})
