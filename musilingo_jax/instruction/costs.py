"""What asking an endpoint costs: before, as an estimate, and after, as it counted.

A token of English is about four letters. A pair has about a hundred tokens with the
signs of its JSON; a reply has `max_tokens` at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from musilingo_jax.instruction.endpoint import Endpoint
from musilingo_jax.instruction.pairs import Item

_LETTERS_PER_TOKEN = 4
_TOKENS_PER_PAIR = 100


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in whatever money; None if that is unknown."""

    read: float | None
    written: float | None

    def of(self, read: float, written: float) -> float | None:
        """What some tokens cost; None if a price is unknown."""
        if self.read is None or self.written is None:
            return None
        return (self.read * read + self.written * written) / 1e6


def estimate(endpoint: Endpoint, items: Sequence[Item], prices: Prices) -> str:
    """What is going to be asked, in a sentence.

    Args:
      endpoint: who is asked.
      items: what is not answered yet.
      prices: of tokens.
    """
    letters = sum(len(endpoint.body(item)["messages"][0]["content"]) for item in items)
    read = letters / _LETTERS_PER_TOKEN
    most = len(items) * endpoint.max_tokens
    likely = min(most, len(items) * endpoint.pairs * _TOKENS_PER_PAIR)
    text = (
        f"{len(items):,} requests to {endpoint.model} at {endpoint.address}: about "
        f"{_short(read)} tokens to read, about {_short(likely)} to write, "
        f"{_short(most)} at most"
    )
    cost, highest = prices.of(read, likely), prices.of(read, most)
    if cost is None or highest is None:
        return f"{text}; without --price-in and --price-out the cost is not known"
    return f"{text}; about {cost:,.2f}, at most {highest:,.2f} by these prices"


def spent(read: int, written: int, prices: Prices) -> str:
    """What was counted, in a sentence."""
    text = f"{read:,} tokens read, {written:,} written"
    cost = prices.of(read, written)
    return text if cost is None else f"{text}: {cost:,.2f} by these prices"


def _short(count: float) -> str:
    """Two significant digits of a number: 1,234,567 → "1.2 M"."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.2g}{letter}"
    return f"{count:.0f}"
