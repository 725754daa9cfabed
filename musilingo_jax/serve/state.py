"""What the requests of one server share."""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from musilingo_jax.serve.deadlines import Deadlines
from musilingo_jax.serve.engine import Engine
from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.hearing import Hearing
from musilingo_jax.serve.limits import Limits
from musilingo_jax.serve.metrics import Metrics

T = TypeVar("T")
# Seconds after which a client may try again while the server warms up.
_RETRY_AFTER = 5


@dataclass
class State:
    """One server.

    Attributes:
      engine: the model.
      limits: of requests.
      allowed_hosts: from which songs are fetched.
      metrics: counts.
      hearing: the songs of late.
      deadlines: of requests.
      threads: that wait for the model, one for each answer or song.
      created: when, in seconds since 1970.
      is_warm: whether what the model needs is compiled, so that questions are taken.
    """

    engine: Engine
    limits: Limits
    allowed_hosts: Collection[str]
    metrics: Metrics
    hearing: Hearing
    deadlines: Deadlines
    threads: ThreadPoolExecutor
    created: int = field(default_factory=lambda: int(time.time()))
    is_warm: bool = True

    def check_warm(self) -> None:
        """Checks that questions are taken.

        Raises:
          Refusal: not yet.
        """
        if not self.is_warm:
            raise Refusal(
                503,
                "the server has begun a moment ago and compiles what the model needs: "
                "try again",
                code="warming",
                retry_after=_RETRY_AFTER,
            )

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The result of some work that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def check_model(self, name: str) -> None:
        """Checks that a request is for this model.

        Raises:
          Refusal: it is for another one.
        """
        if name != self.engine.name:
            raise Refusal(
                404,
                f"the model {name[:80]!r} is not served: this server has "
                f"{self.engine.name!r}",
                param="model",
                code="model_not_found",
            )
