"""The text that ends an answer, found in any tokenisation while the answer is made."""

import functools

import numpy as np
from jaxtyping import Int32

from musilingo_jax.tokenizer import Tokenizer


@functools.lru_cache(maxsize=4)
def stop_table(
    tokenizer: Tokenizer, stop: str, vocab: int
) -> Int32[np.ndarray, "states vocab"]:
    """How far each token takes a row towards having spelled `stop`.

    A tokenizer may write "###" as "###", "##" "#", "#" "##", or glue it to what stands
    before or after ("!#" "##\\n"). So we follow letters, not tokens: the state is how
    many bytes of `stop` the text ends with (Knuth, Morris & Pratt 1977).

        stop = "###"       token   "a"   "#"   "##"   "a#"   "##\\n"   "###"   "</s>"
        state 0 (start)             0     1     2      1      0        3       3
        state 1 (… #)               0     2     3      1      3        3       3
        state 2 (… ##)              0     3     3      1      3        3       3
        state 3 (finished)          3     3     3      3      3        3       3

    Args:
      tokenizer: the language model's.
      stop: the text that ends an answer, not empty.
      vocab: the language model's number of tokens, at least the tokenizer's.

    Returns:
      `table[state, token]` = next state.
    """
    sign = stop.encode()
    finished = len(sign)
    # No token without text forgets what was spelled.
    table = np.tile(np.arange(finished + 1, dtype=np.int32)[:, None], (1, vocab))
    for token, text in tokenizer.texts.items():
        if not text:
            continue
        if set(text).isdisjoint(sign):
            table[:, token] = 0
            continue
        for state in range(finished):
            table[state, token] = _spelled(sign[:state] + text, sign)
    if tokenizer.end is not None:
        table[:, tokenizer.end] = finished
    table[finished] = finished
    return table


def _spelled(text: bytes, stop: bytes) -> int:
    if stop in text:
        return len(stop)
    return max(size for size in range(len(stop)) if text.endswith(stop[:size]))


def tidy(text: str, stop: str) -> str:
    """Cuts at the stop text and drops a repeated "Assistant:", as MusiLingo does."""
    return text.split(stop)[0].strip().removeprefix("Assistant:").strip()
