"""Pairs by a model behind an address that speaks OpenAI's protocol.

`/v1/chat/completions` is what OpenAI, vLLM, llama.cpp, SGLang, Ollama and most others
offer. Several requests are on their way at a time; each reply is in the `Ledger` before
it is used, so none is asked for twice.

Where `exchange` says that a request may succeed later, it is sent again after a pause,
which doubles each time. The job ends if no request can succeed, or if many items failed
one after the other.
"""

import functools
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.instruction import exchange, instructions, ledger
from musilingo_jax.instruction.making import Ask, Said
from musilingo_jax.instruction.pairs import Item
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

_PATH = "/chat/completions"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds; doubled each time
_LONGEST_WISH = 600.0  # seconds that a server may ask us to wait
# Items one after the other that failed in every attempt, after which the job ends.
_MOST_FAILURES = 10


@dataclass(frozen=True)
class Endpoint:
    """An address and how it is asked.

    Attributes:
      url: up to `/v1`, or up to `/chat/completions`.
      model: its name there.
      key_env: the variable of the environment that holds the key; "" for no key.
      in_flight: requests at a time.
      timeout: seconds for a whole reply.
      attempts: of one request, at most.
      temperature: of the draws.
      max_tokens: of a reply.
      pairs: how many are asked for.
      seed: of the command line.
      folder: of the job, where the ledger is.
    """

    url: str
    model: str
    key_env: str
    in_flight: int
    timeout: float
    attempts: int
    temperature: float
    max_tokens: int
    pairs: int
    seed: int
    folder: Path

    @property
    def address(self) -> str:
        """Of completions."""
        base = self.url.rstrip("/")
        return base if base.endswith(_PATH) else base + _PATH

    @property
    def identity(self) -> StoredIdentity:
        """What replies depend on besides the items."""
        return {
            "url": self.address,
            "prompt": instructions.VERSION,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def body(self, item: Item) -> dict[str, Any]:
        """What is sent for an item."""
        text = instructions.text(item, self.pairs)
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": instructions.seed(item, self.seed),
        }

    def key(self, item: Item) -> str:
        """Under which the ledger has the reply."""
        return ledger.key_of(self.address, self.body(item))


def load(endpoint: Endpoint) -> Ask:
    """What asks; it reads the ledger.

    Raises:
      UserError: the key is not in the environment, or the ledger cannot be read.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key_env:
        headers["Authorization"] = f"Bearer {_key(endpoint.key_env)}"
    known = ledger.Ledger(endpoint.folder)
    return functools.partial(ask, endpoint, headers, known)


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or not key:
        raise UserError(
            f"--key-env={variable}: the environment holds no key under this name: "
            f"`export {variable}=…`, or leave the flag out if none is needed"
        )
    return key


def ask(
    endpoint: Endpoint,
    headers: dict[str, str],
    known: ledger.Ledger,
    items: Sequence[Item],
) -> Iterator[Said | UserError]:
    """What the model says of each item, in order; or why it does not.

    Who stops before the end stops the requests that have not begun. Those that have are
    waited for, as they are paid for.

    Raises:
      UserError: no request can succeed.
    """
    failures = _Failures(endpoint, threading.Event())
    one = functools.partial(_one, endpoint, headers, known, failures)
    pool, futures = ThreadPoolExecutor(endpoint.in_flight), []
    try:
        futures = [pool.submit(one, item) for item in items]
        for future in futures:
            yield future.result()
    finally:
        failures.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        if running := sum(not future.done() for future in futures):
            print_note(f"waiting for {running} replies that are on their way")
        pool.shutdown(wait=True)


class _Failures:
    """Tells when so many items failed one after the other that the rest would, too."""

    def __init__(self, endpoint: Endpoint, stop: threading.Event):
        self.stop = stop
        self._endpoint, self._lock, self._count = endpoint, threading.Lock(), 0

    def note(self, problem: str | None) -> None:
        """Notes how an item ended: with a problem, or with None.

        Raises:
          UserError: it was one too many.
        """
        with self._lock:
            self._count = 0 if problem is None else self._count + 1
            if self._count >= _MOST_FAILURES:
                self.stop.set()
                raise UserError(
                    f"{self._endpoint.address}: {_MOST_FAILURES} requests one after "
                    f"the other failed, the last with: {problem}. Run the same command "
                    "again later: what is answered is kept"
                )


def _one(
    endpoint: Endpoint,
    headers: dict[str, str],
    known: ledger.Ledger,
    failures: _Failures,
    item: Item,
) -> Said | UserError:
    """The reply to one item, from the ledger or from the endpoint.

    Raises:
      UserError: no request can succeed.
    """
    if failures.stop.is_set():
        return UserError(f"{item.subject.clip}: was not asked for, as the job ended")
    body = endpoint.body(item)
    key = ledger.key_of(endpoint.address, body)
    if (said := known.get(key)) is not None:
        return said
    problem = ""
    for attempt in range(endpoint.attempts):
        try:
            said = exchange.completion(
                endpoint.address, headers, body, timeout=endpoint.timeout
            )
        except exchange.Refused as error:
            return UserError(f"{item.subject.clip}: {error}")
        except exchange.Hopeless as error:
            failures.stop.set()
            raise UserError(f"{endpoint.address}: {error}") from error
        except exchange.Again as error:
            problem = str(error)
            if attempt + 1 == endpoint.attempts or failures.stop.wait(
                _pause(attempt, error.wish)
            ):
                break
            continue
        known.add(key, said)
        failures.note(None)
        return said
    failures.note(problem)
    tried = f"after {endpoint.attempts} attempts"
    return UserError(f"{item.subject.clip}: no reply {tried}, the last: {problem}")


def _pause(attempt: int, wish: float | None) -> float:
    """Seconds until the next attempt, longer each time and not all at once."""
    if wish is not None:
        return min(wish, _LONGEST_WISH)
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
    return random.uniform(longest / 2, longest)
