"""The text that ends an answer, found in any tokenisation while the answer is made."""

import functools

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase


@functools.lru_cache(maxsize=4)
def stop_table(
    tokenizer: PreTrainedTokenizerBase, stop: str, vocab: int
) -> Int32[np.ndarray, "states vocab"]:
    """How far each token takes a row towards having spelled `stop`.

    A tokenizer may write "###" as "###", "##" "#", "#" "##", or glue it to what stands
    before or after ("!#" "##\\n"). So we follow letters, not tokens: the state is how
    many letters of `stop` the text ends with (Knuth, Morris & Pratt 1977).

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
    finished = len(stop)
    table = np.zeros((finished + 1, vocab), np.int32)
    # A token's text depends on what stands before it (a first space is not written),
    # so that each is read behind a letter.
    letter = tokenizer.encode("a", add_special_tokens=False)[-1]
    before = len(tokenizer.decode([letter], clean_up_tokenization_spaces=False))
    texts = tokenizer.batch_decode(
        [[letter, token] for token in range(min(len(tokenizer), vocab))],
        clean_up_tokenization_spaces=False,
    )
    for token, text in enumerate(texts):
        text = text[before:]
        if set(text).isdisjoint(stop):
            # No token without text forgets what was spelled.
            table[:, token] = 0 if text else np.arange(finished + 1)
            continue
        for state in range(finished):
            table[state, token] = _spelled(stop[:state] + text, stop)
    if tokenizer.eos_token_id is not None:
        table[:, tokenizer.eos_token_id] = finished
    table[finished] = finished
    return table


def _spelled(text: str, stop: str) -> int:
    if stop in text:
        return len(stop)
    return max(size for size in range(len(stop)) if text.endswith(stop[:size]))


def tidy(text: str, stop: str) -> str:
    """Cuts at the stop text and drops a repeated "Assistant:", as MusiLingo does."""
    return text.split(stop)[0].strip().removeprefix("Assistant:").strip()
