"""Pairs by one of our own language models, which is asked without music.

It is the engine that answers questions about songs (`answering/answer.py`), with
prompts that have no audio in them: a song of no windows. What is asked of an item
depends on the item alone, so that the replies are the same in any batch.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from musilingo_jax.answering import chat_templates
from musilingo_jax.answering.answer import Request, answer_each, prompt_tokens
from musilingo_jax.answering.answerer import Answerer, context_of
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import AUDIO, MODEL_END, PromptConfig
from musilingo_jax.instruction import instructions
from musilingo_jax.instruction.making import Ask, Said
from musilingo_jax.instruction.pairs import Item
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import unstacked
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime import platforms
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import identity_of
from musilingo_jax.runtime.sharding import make_mesh

# No audio: no windows, of any width.
_SILENCE = np.zeros((0, 1), np.float32)
_INSTRUCTION = AUDIO + "{}"


@dataclass(frozen=True)
class Decoder:
    """A language model and how it is asked.

    Attributes:
      source: its folder or name.
      dtype, quantization: as in `ModelConfig`.
      template: the turns around a request, with `{}` where it goes; "" for the model's
        own chat template.
      end_sign: what ends a reply, with a template.
      generate: how replies are decoded.
      pairs: how many are asked for.
    """

    source: str
    dtype: str
    quantization: str
    template: str
    end_sign: str
    generate: GenerateConfig
    pairs: int

    @functools.cached_property
    def prompt(self) -> PromptConfig:
        """The conversation around a request.

        Raises:
          UserError: the model has no chat template, and none is given.
        """
        most = self.generate.max_new_tokens
        if self.template:
            return PromptConfig(self.template, _INSTRUCTION, self.end_sign, most)
        part = sources.find(self.source, "language_model")
        folder = part.tokenizer or part.folder
        try:
            return chat_templates.prompt_of(
                folder, instruction=_INSTRUCTION, max_answer_tokens=most
            )
        except UserError as error:
            raise UserError(
                f"{self.source} cannot be asked by a chat template of its own: give "
                f"--template=… and --end-sign=…, as it was trained ({error})"
            ) from error

    @property
    def identity(self) -> StoredIdentity:
        """What replies depend on besides the items.

        Raises:
          UserError: as in `prompt` and `weights.digest`.
        """
        prompt, decoding = identity_of(self.prompt), identity_of(self.generate)
        del decoding["batch_size"]
        return {
            "digest": weights.digest(self.source, "language_model"),
            "numbers": f"{self.dtype} {self.quantization}".strip(),
            "prompt": instructions.VERSION,
            "conversation": str(prompt),
            "decoding": str(decoding),
        }


def load(decoder: Decoder) -> Ask:
    """Loads the model onto the first device.

    Raises:
      UserError: there is no such model, or it is damaged.
    """
    platforms.start()
    answerer = _without_music(decoder, make_mesh(data=1, fsdp=1, tensor=1))
    return functools.partial(ask, answerer, decoder)


def _without_music(decoder: Decoder, mesh: Mesh) -> Answerer:
    """The model with a bridge that is never crossed."""
    llama = weights.load_language_model(
        decoder.source,
        dtype=decoder.dtype,
        quantization=decoder.quantization,
        mesh=mesh,
    )
    return Answerer(
        bridge=LinearBridge(1, llama.config.width, rngs=nnx.Rngs(0)),
        llama=unstacked(llama),
        tokenizer=weights.load_tokenizer(decoder.source),
        context=context_of(decoder.source),
        mesh=mesh,
    )


def ask(
    answerer: Answerer, decoder: Decoder, items: Sequence[Item]
) -> Iterator[Said | UserError]:
    """What the model says of each item, in order; or why it cannot be asked.

    Raises:
      UserError: the device has too little memory.
    """
    results: list[Said | UserError | None] = [None] * len(items)
    requests: list[Request] = []
    places: list[int] = []
    lengths: list[int] = []
    for place, item in enumerate(items):
        text = instructions.text(item, decoder.pairs)
        tokens = prompt_tokens(answerer, decoder.prompt, _SILENCE, text).tokens
        if problem := _problem(answerer, decoder, item, text, len(tokens)):
            results[place] = UserError(problem)
            continue
        requests.append((_SILENCE, text))
        places.append(place)
        lengths.append(len(tokens))
    replies = answer_each(answerer, decoder.prompt, requests, decoder.generate)
    following = 0
    for index, answer in replies:
        written = len(answerer.tokenizer.encode(answer.text))
        said = Said(answer.text, answer.is_cut, lengths[index], written)
        results[places[index]] = said
        # As soon as it is its turn, since replies take long.
        while following < len(items) and (ready := results[following]) is not None:
            yield ready
            following += 1
    for result in results[following:]:
        assert result is not None  # Each is refused or answered.
        yield result


def _problem(
    answerer: Answerer, decoder: Decoder, item: Item, text: str, length: int
) -> str | None:
    """Why an item cannot be asked for; None if it can."""
    clip, sign = item.subject.clip, decoder.prompt.end_sign
    if sign != MODEL_END and sign in text:
        return f"{clip}: what is known of it contains {sign!r}, which ends a turn"
    room = answerer.context - decoder.generate.max_new_tokens
    if length > room:
        return (
            f"{clip}: the request has {length} tokens, but the language model has room "
            f"for {room} before a reply of {decoder.generate.max_new_tokens}"
        )
    return None
