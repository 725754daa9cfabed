"""The texts that end an answer, found in any tokenisation while it is generated."""

import codecs
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int16

if TYPE_CHECKING:
    from musilingo_jax.pretrained.tokenizer import Tokenizer

# With which the prompt ends, and which a model may nevertheless repeat.
REPEATED = "Assistant:"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stops:
    r"""An automaton that reads tokens and finds out when they spell a stop text.

    A tokenizer may write "###" as "###", "##" "#", "#" "##", or glue it to what stands
    before or after it ("!#" "##\n"). So we follow letters, not tokens: the state is the
    longest beginning of a stop text that the answer now ends with (Aho & Corasick
    1975). For one text, "###":

        token              "a"   "#"   "##"   "a#"   "##\n"   "###"   "</s>"
        kind                0     1     2      3      4        5       5
        state 0 (start)     0     1     2      1      0        3       3
        state 1 (… #)       0     2     3      1      3        3       3
        state 2 (… ##)      0     3     3      1      3        3       3
        state 3 (finished)  3     3     3      3      3        3       3

    Nearly all tokens of a vocabulary are of the same kind as "a". With one column for
    each token instead, ten texts would take 100 MB for LLaMA 3's vocabulary.

    Rows with different stop texts have an automaton each, of equally many states. They
    stand in one table, one below the other, and all end in the last state of all: so a
    row's state says which one it follows (`row_settings.py`).
    """

    table: jax.Array  # int32[states, kinds]: next state; the last one = finished
    kind: jax.Array  # int[automata, vocab]: the column of each token

    @property
    def finished(self) -> int:
        """The state after a stop text or an end token, which is never left."""
        return self.table.shape[0] - 1

    def follow(
        self, state: Int[Array, " batch"], token: Int[Array, " batch"]
    ) -> Int[Array, " batch"]:
        """The states of answers that were in `state` and get `token`."""
        return self.table[state, self.kind[self._automaton(state), token]]

    def finishing(self, state: Int[Array, " batch"]) -> Bool[Array, "batch vocab"]:
        """Whether each token would finish an answer that is in `state`."""
        finishing = self.table[state] == self.finished
        kind = self.kind[self._automaton(state)].astype(jnp.int32)
        return jnp.take_along_axis(finishing, kind, axis=1)

    def _automaton(self, state: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Which automaton has a state."""
        return state // (self.table.shape[0] // self.kind.shape[0])


@functools.lru_cache(maxsize=8)
def stops_of(tokenizer: "Tokenizer", texts: tuple[str, ...], vocab: int) -> Stops:
    """Compiles the automaton.

    Args:
      tokenizer: the language model's; its end tokens end an answer, too.
      texts: what ends an answer, besides end tokens; none is empty. The spelling of a
        special token stands for this token, and for its letters.
      vocab: the language model's number of tokens, at least the tokenizer's.
    """
    step = _automaton([text.encode() for text in texts])
    finished = len(step) - 1
    # All tokens read one more of their bytes at a time; a token without bytes left
    # stays in its state, and so a token without text changes none.
    by_length = sorted(tokenizer.texts.items(), key=lambda item: -len(item[1]))
    tokens = np.array([token for token, _ in by_length])
    lengths = np.array([len(text) for _, text in by_length])
    columns = np.tile(np.arange(finished + 1, dtype=np.int16)[:, None], (1, vocab))
    for place in range(lengths[0]):
        reading = int(np.searchsorted(-lengths, -place))
        letters = np.array([text[place] for _, text in by_length[:reading]])
        columns[:, tokens[:reading]] = step[columns[:, tokens[:reading]], letters]
    columns[:, ending_tokens(tokenizer, texts)] = finished
    columns[finished] = finished
    table, kind = np.unique(columns, axis=1, return_inverse=True)
    return Stops(
        jnp.asarray(table, jnp.int32), jnp.asarray(kind.reshape(1, -1), jnp.int32)
    )


def ending_tokens(tokenizer: "Tokenizer", texts: tuple[str, ...]) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and the special ones of texts."""
    special = tokenizer.special
    return [*tokenizer.ends, *(special[text] for text in texts if text in special)]


def _automaton(signs: list[bytes]) -> Int16[np.ndarray, "states bytes"]:
    """Next state by state and byte; state 0 is the start, the last one is finished.

    Each other state is a beginning of a sign. The next state is the longest beginning
    that the text then ends with.
    """
    beginnings = {b""} | {sign[:size] for sign in signs for size in range(len(sign))}
    states = sorted(beginnings, key=lambda text: (len(text), text))
    number = {text: index for index, text in enumerate(states)}
    step = np.zeros((len(states) + 1, 256), np.int16)
    for state, text in enumerate(states):
        for letter in set(b"".join(signs)):
            spelled = text + bytes([letter])
            if spelled.endswith(tuple(signs)):
                step[state, letter] = len(states)
            else:
                endings = (spelled[start:] for start in range(len(spelled) + 1))
                step[state, letter] = next(number[e] for e in endings if e in number)
    step[-1] = len(states)
    return step


def tidy(text: str, stops: tuple[str, ...]) -> str:
    """The answer in a generated text.

    It ends before the first stop text, and begins after a repeated "Assistant:", as in
    MusiLingo. The token that completes a stop text may hold more letters: these go too.
    """
    cut = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    return text[:cut].strip().removeprefix(REPEATED).strip()


def settled(spelled: bytes, stops: tuple[str, ...]) -> str:
    """The beginning of `tidy`'s answer that no later token can change.

    Held back are: a letter whose last bytes are missing, what may become a stop text,
    spaces at the end, and what may become a repeated "Assistant:".

        spelled    " It is jazz"   " It is jazz. ##"   " It is jazz. ## ok"
        settled     "It is jazz"    "It is jazz."       "It is jazz. ## ok"

    Args:
      spelled: the text generated so far, in UTF-8.
      stops: the texts that end an answer.
    """
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(spelled)
    if any(stop in text for stop in stops):
        return tidy(text, stops)
    beginnings = (stop[:size] for stop in stops for size in range(1, len(stop)))
    held = max((len(b) for b in beginnings if text.endswith(b)), default=0)
    text = text[: len(text) - held].strip()
    return "" if REPEATED.startswith(text) else text.removeprefix(REPEATED).strip()
