"""Questions and answers → tokens: where the audio is, and which tokens are targets.

The text around the audio is tokenised in pieces, as in MusiLingo: each piece on its own
and without special tokens. So a piece has the same tokens in training, evaluation and
chat, whatever stands beside it.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting

if TYPE_CHECKING:
    from musilingo_jax.pretrained.tokenizer import Tokenizer

AUDIO = "<AudioHere>"


@dataclass(frozen=True)
class PromptConfig:
    """The conversation around one song.

    Attributes:
      template: the turns, with `{}` for the instruction; "" for no text at all, as in
        the first stage, where the caption follows the audio directly.
      instruction: the human's turn, with `<AudioHere>` for the audio vectors and `{}`
        for the question. Ignored if `template` is "".
      end_sign: what the model writes at the end of an answer.
      max_answer_tokens: longer answers are cut to this many tokens, end sign included.
    """

    template: str
    instruction: str
    end_sign: str
    max_answer_tokens: int = setting(at_least=1)

    def __post_init__(self):
        if self.template and self.template.count("{}") != 1:
            raise UserError(
                f"prompt.template is {self.template!r}: it must contain {{}} once, "
                'where the instruction goes, or be "" for no text around the audio'
            )
        for mark in (AUDIO, "{}"):
            if self.template and self.instruction.count(mark) != 1:
                raise UserError(
                    f"prompt.instruction is {self.instruction!r}: it must contain "
                    f"{mark} once"
                )
        if not self.end_sign:
            raise UserError(
                "prompt.end_sign is empty: give the text that ends an answer, such as "
                "'###'"
            )

    @property
    def pieces(self) -> tuple[str, str]:
        """The text before and after the audio, with `{}` where the question goes."""
        if not self.template:
            return "", ""
        before, after = self.template.split("{}")
        opening, closing = self.instruction.split(AUDIO)
        return before + opening, closing + after


@dataclass(frozen=True)
class Example:
    """One sequence, as three lists of its length.

    With the prompt of the second stage, 2 audio vectors and `answer` "Jazz.":

        text          <s> ###Human: <Audio> ♪  ♪ </Audio> Genre? ###Assistant: Jazz. ###
        audio_slot     -1     -1      -1    0  1    -1      -1        -1         -1  -1
        target_mask     .      .       .    .  .     .       .         .          x   x

    Attributes:
      tokens: token ids; 0 in place of audio, which is never looked up.
      audio_slot: index of the audio vector at this place, -1 for a text token.
      target_mask: whether the model learns to generate this token.
      cut: whether the answer was longer than `max_answer_tokens`.
    """

    tokens: list[int]
    audio_slot: list[int]
    target_mask: list[bool]
    cut: bool


def encode(
    tokenizer: "Tokenizer",
    prompt: PromptConfig,
    question: str,
    answer: str | None,
    windows: int,
) -> Example:
    """Encodes one question about one song of `windows` audio vectors.

    Args:
      tokenizer: the language model's.
      prompt: the conversation around the song.
      question: the question; a prompt without a template has no place for it.
      answer: the answer to learn, or None for a prompt that the model is to answer.
      windows: number of audio vectors.

    Raises:
      UserError: the tokenizer has no start token, or the end sign alone has more than
        `prompt.max_answer_tokens`.
    """
    if tokenizer.start is None:
        raise UserError(
            f"the tokenizer {tokenizer.name} names no start token, with which every "
            "sequence begins: set bos_token in its tokenizer_config.json"
        )
    # Replaced, not formatted: other braces, in the question too, are only text.
    before, after = (
        _piece(tokenizer, piece.replace("{}", question)) for piece in prompt.pieces
    )
    target, cut = ([], False) if answer is None else _answer(tokenizer, prompt, answer)
    start = [tokenizer.start, *before]
    rest = [*after, *target]
    return Example(
        tokens=start + [0] * windows + rest,
        audio_slot=[-1] * len(start) + list(range(windows)) + [-1] * len(rest),
        target_mask=[False] * (len(start) + windows + len(after))
        + [True] * len(target),
        cut=cut,
    )


@functools.lru_cache(1024)
def _piece(tokenizer: "Tokenizer", text: str) -> tuple[int, ...]:
    """The tokens of text around the audio, much of which is the same in all prompts."""
    return tuple(tokenizer.encode(text))


def _answer(
    tokenizer: "Tokenizer", prompt: PromptConfig, answer: str
) -> tuple[list[int], bool]:
    """The answer and its end sign, and whether the answer had to be cut.

    They are tokenised as one text, as in MusiLingo. But a long answer is cut before its
    end sign, since a model that never sees the sign does not learn to stop.
    """
    tokens = tokenizer.encode(answer + prompt.end_sign)
    if len(tokens) <= prompt.max_answer_tokens:
        return tokens, False
    # The sign may share a token with the answer's last letters, so its tokens are all
    # those that differ from the tokens of the answer alone.
    alone = tokenizer.encode(answer)
    same = [ours == theirs for ours, theirs in zip(tokens, alone, strict=False)]
    sign = tokens[same.index(False) if False in same else len(same) :]
    room = prompt.max_answer_tokens - len(sign)
    if room < 1:
        raise UserError(
            f"prompt.max_answer_tokens is {prompt.max_answer_tokens}, but the end sign "
            f"{prompt.end_sign!r} alone takes {len(sign)}: raise it"
        )
    return tokens[:room] + sign, True
