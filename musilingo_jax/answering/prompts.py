"""Questions and answers → tokens: where the audio is, and which tokens are targets.

The text around the audio is tokenised in pieces, as in MusiLingo: each piece on its own
and without special tokens. So a piece has the same tokens in training, evaluation and
chat, whatever stands beside it.

Models that were trained to follow instructions mark turns by special tokens. Where a
template or an end sign spells one of the tokenizer's, it is that token:

    <|im_start|>user⏎<AudioHere>{}<|im_end|>⏎<|im_start|>assistant⏎

Questions and answers never make special tokens: what they hold is letters, so that no
question can end its own turn.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from musilingo_jax.models.heard import BEGIN, END, WORD
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting

if TYPE_CHECKING:
    from musilingo_jax.pretrained.tokenizer import Tokenizer

AUDIO = "<AudioHere>"

MODEL_END = "<EndHere>"
"""As an end sign: the token with which the language model itself ends a text."""


@dataclass(frozen=True)
class PromptConfig:
    """The conversation around one song.

    Attributes:
      template: the turns, with `{}` for the instruction; "" for no text at all, as in
        the first stage, where the caption follows the audio directly.
      instruction: the human's turn, with `<AudioHere>` for the audio vectors, unless
        they are heard without standing in the text, and `{}` for the question. Ignored
        if `template` is "".
      end_sign: what the model writes at the end of an answer: a text, the spelling of a
        special token, or `MODEL_END`.
      max_answer_tokens: longer answers are cut to this many tokens, end sign included.
      next_turn: what follows a question that was answered before: text with `{}` for
        the answer and, behind it, `{}` for the next question. "" for the turns of
        `template`, one after the other.
      other_instruction: what stands in place of `instruction` in half of the examples
        that are learnt from, as in LLark, where audio comes before or after the
        question; "" for none. Questions are asked with `instruction`.
      special_tokens: whether the spellings of special tokens in `template`,
        `instruction`, `next_turn` and `end_sign` are these tokens, and not letters.
    """

    template: str
    instruction: str
    end_sign: str
    max_answer_tokens: int = setting(at_least=1)
    next_turn: str = setting(default="", before="")
    # Runs that are older were trained on the letters.
    special_tokens: bool = setting(default=True, before=False)
    other_instruction: str = setting(default="", before="")

    def __post_init__(self):
        if self.template and self.template.count("{}") != 1:
            raise UserError(
                f"prompt.template is {self.template!r}: it must contain {{}} once, "
                'where the instruction goes, or be "" for no text around the audio'
            )
        for key in self._instructions:
            text = getattr(self, key)
            for mark, counts in ((AUDIO, (0, 1)), ("{}", (1,))):
                if text.count(mark) not in counts:
                    raise UserError(
                        f"prompt.{key} is {text!r}: it must contain {mark} once"
                    )
        if not self.end_sign:
            raise UserError(
                "prompt.end_sign is empty: give the text that ends an answer, such as "
                f"'###', or {MODEL_END!r} for the model's own end token"
            )
        for key in (
            "template",
            "instruction",
            "other_instruction",
            "next_turn",
            "end_sign",
        ):
            self._check_marks(key, getattr(self, key))
        if self.next_turn and self.next_turn.count("{}") != 2:
            raise UserError(
                f"prompt.next_turn is {self.next_turn!r}: it must contain {{}} twice, "
                'where the answer and the next question go, or be ""'
            )

    @property
    def _instructions(self) -> tuple[str, ...]:
        """The keys of the instructions that are used."""
        if not self.template:
            return ()
        other = ("other_instruction",) if self.other_instruction else ()
        return ("instruction", *other)

    @property
    def other(self) -> "PromptConfig | None":
        """With the other instruction in place of the first; None if there is none."""
        if "other_instruction" not in self._instructions:
            return None
        return replace(self, instruction=self.other_instruction, other_instruction="")

    def _check_marks(self, key: str, text: str) -> None:
        """Checks that no mark is where it would be letters, without a word.

        Raises:
          UserError: one is.
        """
        mark, place = "", ""
        if AUDIO in text and not key.endswith("instruction"):
            mark, place = AUDIO, "prompt.instruction"
        if MODEL_END in text and (key, text) != ("end_sign", MODEL_END):
            mark, place = MODEL_END, "prompt.end_sign, with nothing beside it"
        if mark:
            raise UserError(f"prompt.{key} is {text!r}: {mark} can only be in {place}")

    def check_place(self, where: str, *, splices: bool) -> None:
        """Checks that audio has a place in the text if it needs one.

        Args:
          where: the prompt's name in a config, for messages.
          splices: whether audio vectors stand in the text.

        Raises:
          UserError: they do and there is none, or they do not and there is one.
        """
        for key in self._instructions:
            text = getattr(self, key)
            if splices and AUDIO not in text:
                raise UserError(
                    f"{where}.{key} is {text!r}: it must contain {AUDIO} once, where "
                    "the audio vectors go"
                )
            if AUDIO in text and not splices:
                raise UserError(
                    f"{where}.{key} is {text!r}: this bridge puts no vectors into the "
                    f"text, so take {AUDIO} out"
                )

    @property
    def pieces(self) -> tuple[str, str]:
        """The text before and after the audio, with `{}` where the question goes.

        Without a place for audio, all of it is after the audio.
        """
        before, rest = self.first_turn
        return before, rest + self.template.partition("{}")[2]

    @property
    def first_turn(self) -> tuple[str, str]:
        """`pieces` up to the end of the instruction."""
        if not self.template:
            return "", ""
        before = self.template.partition("{}")[0]
        opening, mark, closing = self.instruction.partition(AUDIO)
        return (before + opening, closing) if mark else ("", before + opening)

    @property
    def between(self) -> tuple[str, str, str]:
        """The text before an earlier answer, that behind it, and that which ends all.

        The template of one turn, "###Human: {} ###Assistant: " with the end sign "###":

            ###Human: q  ###Assistant: a ###Human: q  ###Assistant:
                       --------------- ----------   ---------------

        Raises:
          UserError: there are no turns.
        """
        if not self.template:
            raise UserError("a prompt without a template has no earlier turns")
        before, after = self.template.split("{}")
        if self.next_turn:
            answered, following, rest = self.next_turn.split("{}")
            return answered, following, rest + after
        if not before.startswith(self.end_sign):
            before = self.end_sign.replace(MODEL_END, "") + before
        return after, before, after


@dataclass(frozen=True)
class Example:
    """One sequence, as three lists of its length.

    With the prompt of the second stage, 2 audio vectors and `answer` "Jazz.":

        text          <s> ###Human: <Audio> ♪  ♪ </Audio> Genre? ###Assistant: Jazz. ###
        audio_slot     -1     -1      -1    0  1    -1      -1        -1         -1  -1
        target_mask     .      .       .    .  .     .       .         .          x   x

    Attributes:
      tokens: token ids; 0 in place of audio, which is never looked up.
      audio_slot: index of the audio vector at this place, `heard.WORD` for text;
        `heard.BEGIN` and `heard.END` around the audio of a bridge that marks it.
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
    *,
    earlier: Sequence[tuple[str, str]] = (),
    marks: bool = False,
) -> Example:
    """Encodes one question about one song of `windows` audio vectors.

    Args:
      tokenizer: the language model's.
      prompt: the conversation around the song.
      question: the question; a prompt without a template has no place for it.
      answer: the answer to learn, or None for a prompt that the model is to answer.
      windows: number of audio vectors.
      earlier: questions that were asked about this song before, and their answers.
      marks: whether a vector of the bridge stands before the audio, and one after it.

    Raises:
      UserError: the tokenizer has no start token, or not the model's end token that the
        prompt needs; the end sign alone has more than `prompt.max_answer_tokens`; or
        there are earlier questions, but no template.
    """
    before, after = _pieces(prompt, question, earlier)
    special = tokenizer.special if prompt.special_tokens else {}
    start = [*_start(tokenizer, prompt, special), *_tokens(tokenizer, before, special)]
    closing = _tokens(tokenizer, after, special)
    target, cut = ([], False) if answer is None else _answer(tokenizer, prompt, answer)
    audio = [BEGIN, *range(windows), END] if marks else [*range(windows)]
    rest = [*closing, *target]
    return Example(
        tokens=start + [0] * len(audio) + rest,
        audio_slot=[WORD] * len(start) + audio + [WORD] * len(rest),
        target_mask=[False] * (len(start) + len(audio) + len(closing))
        + [True] * len(target),
        cut=cut,
    )


Part = tuple[str, bool]
"""A text, and whether it is the prompt's own, which may spell special tokens."""


def _pieces(
    prompt: PromptConfig, question: str, earlier: Sequence[tuple[str, str]]
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """What stands before and after the audio."""
    before, after = prompt.pieces
    turns: list[Part] = []
    first = question
    if earlier:
        answered, following, end = prompt.between
        closing = prompt.first_turn[1]
        questions = [asked for asked, _ in earlier[1:]] + [question]
        first, after = earlier[0][0], closing + answered
        for (_, said), asked in zip(earlier, questions, strict=True):
            turns += [(said, False), (following, True), (asked, False)]
            turns += [(answered, True)]
        turns[-1] = (end, True)
    # Split, not formatted: other braces, in the question too, are only text.
    return _filled(before, first), (*_filled(after, first), *turns)


def _filled(piece: str, question: str) -> tuple[Part, ...]:
    """A piece of a prompt with the question in its place, if it has one."""
    before, mark, after = piece.partition("{}")
    return (
        ((before, True), (question, False), (after, True))
        if mark
        else ((before, True),)
    )


def _start(
    tokenizer: "Tokenizer", prompt: PromptConfig, special: Mapping[str, int]
) -> tuple[int, ...]:
    """The start token, unless the prompt itself begins with a special token."""
    if prompt.pieces[0].startswith(tuple(special)):
        return ()
    if tokenizer.start is not None:
        return (tokenizer.start,)
    if tokenizer.starts_plainly:
        return ()
    raise UserError(
        f"the tokenizer {tokenizer.name} names no start token, with which every "
        "sequence begins: set bos_token in its tokenizer_config.json"
    )


@functools.lru_cache(1024)
def _tokens_of_text(
    tokenizer: "Tokenizer", text: str, after_special: bool
) -> tuple[int, ...]:
    """The tokens of text around the audio, much of which is the same in all prompts."""
    return tuple(tokenizer.encode(text, after_special=after_special))


def _tokens(
    tokenizer: "Tokenizer", parts: Sequence[Part], special: Mapping[str, int]
) -> list[int]:
    """The tokens of texts that stand side by side.

    Text between two special tokens is tokenised as one, wherever it comes from.
    """
    # The longest spelling first, since one may begin another.
    spelled = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    tokens: list[int] = []
    text, after_special = "", False

    def flush() -> None:
        tokens.extend(_tokens_of_text(tokenizer, text, after_special))

    for part, is_ours in parts:
        if not (is_ours and spelled):
            text += part
            continue
        for index, piece in enumerate(re.split(f"({spelled})", part)):
            if index % 2 == 0:
                text += piece
                continue
            flush()
            tokens.append(special[piece])
            text, after_special = "", True
    flush()
    return tokens


def _sign(tokenizer: "Tokenizer", prompt: PromptConfig) -> int | None:
    """The token that ends an answer; None if it is a text.

    Raises:
      UserError: the tokenizer has no end token.
    """
    if prompt.end_sign == MODEL_END:
        if tokenizer.end is None:
            raise UserError(
                f"prompt.end_sign is {MODEL_END!r}, but the tokenizer "
                f"{tokenizer.name} names no end token: set eos_token in its "
                "tokenizer_config.json, or give another end sign"
            )
        return tokenizer.end
    return tokenizer.special.get(prompt.end_sign) if prompt.special_tokens else None


def _answer(
    tokenizer: "Tokenizer", prompt: PromptConfig, answer: str
) -> tuple[list[int], bool]:
    """The answer and its end sign, and whether the answer had to be cut.

    A sign that is text is tokenised with the answer as one text, as in MusiLingo. But a
    long answer is cut before its end sign, since a model that never sees the sign does
    not learn to stop.
    """
    alone, token = tokenizer.encode(answer), _sign(tokenizer, prompt)
    if token is not None:
        tokens, sign = [*alone, token], [token]
    else:
        tokens = tokenizer.encode(answer + prompt.end_sign)
        # The sign may share a token with the answer's last letters, so its tokens are
        # all those that differ from the tokens of the answer alone.
        same = [ours == theirs for ours, theirs in zip(tokens, alone, strict=False)]
        sign = tokens[same.index(False) if False in same else len(same) :]
    if len(tokens) <= prompt.max_answer_tokens:
        return tokens, False
    room = prompt.max_answer_tokens - len(sign)
    if room < 1:
        raise UserError(
            f"prompt.max_answer_tokens is {prompt.max_answer_tokens}, but the end sign "
            f"{prompt.end_sign!r} alone takes {len(sign)}: raise it"
        )
    return tokens[:room] + sign, True
