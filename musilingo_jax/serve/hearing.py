"""What the model has heard of the songs of late, so that it need not hear them again.

The protocol has no memory: each question of a conversation comes with its songs.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.serve import sounds
from musilingo_jax.serve.conversations import Placed
from musilingo_jax.serve.engine import Engine
from musilingo_jax.serve.limits import Limits

# Songs whose features are kept: a few hundred vectors each.
_MOST_SONGS = 256


class Hearing:
    """Hears songs, each of them once; several threads may ask."""

    def __init__(self, engine: Engine, limits: Limits):
        self._engine, self._limits = engine, limits
        self._known: OrderedDict[bytes, Excerpt] = OrderedDict()
        self._lock = threading.Lock()
        # A song at a time: another one would only share its processor and its memory.
        self._encoding = threading.Lock()

    def excerpt(
        self, sound: bytes, placed: Placed, given_up: Callable[[], bool]
    ) -> Excerpt | None:
        """What the model hears of a song.

        Args:
          sound: its file.
          placed: where it is in the request.
          given_up: whether nobody waits for it any more.

        Returns:
          The excerpt; None if nobody waits for it.

        Raises:
          Refusal: it cannot be heard.
        """
        key = sounds.digest(sound)
        if (known := self._find(key)) is not None:
            return known
        with self._encoding:
            if given_up():
                return None
            if (known := self._find(key)) is not None:
                return known
            with sounds.as_file(sound, placed, self._limits) as path:
                heard = self._engine.hear(path)
        with self._lock:
            self._known[key] = heard
            if len(self._known) > _MOST_SONGS:
                self._known.popitem(last=False)
        return heard

    def _find(self, key: bytes) -> Excerpt | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)
