"""The model that is asked about songs, and what a job needs of it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

from musilingo_jax.answering.answer import Answer, Request, answer_each
from musilingo_jax.answering.answer_file import fingerprint
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.listener import Song
from musilingo_jax.answering.model import EMBEDDED, Model
from musilingo_jax.answering.option_scores import (
    OptionRequest,
    OptionScore,
    score_options,
)
from musilingo_jax.answering.usage import Usage
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.pretrained import embedded_models, weights
from musilingo_jax.runtime.command_line import nonempty
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.settings import identity_of


class Sources(NamedTuple):
    """Which model is asked, as `Model.load` takes it.

    Attributes:
      model: a run, a release, or the name of a model; "" for the embedded one.
      adapter: another adapter for it; None for its own.
      style: how a release is asked; None for its "evaluation".
    """

    model: str
    adapter: str | None
    style: str | None

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the flags that name a model."""
        add = parser.add_argument
        add("--model", type=nonempty, help="folder or name of a model")
        add("--run", type=nonempty, help="run folder of your own adapter")
        add("--adapter", type=nonempty, help="folder of another adapter")
        add("--style", help="how a release is asked: evaluation or demo")

    @classmethod
    def of(cls, given: argparse.Namespace) -> "Sources":
        """The model that these flags name.

        Raises:
          UsageError: they name two.
        """
        if given.run is not None and given.model is not None:
            raise UsageError("--run and --model both name what answers: give one")
        return cls(given.run or given.model or "", given.adapter, given.style)

    @property
    def source(self) -> str:
        """The exact name of the model, or its folder."""
        return embedded_models.exact(self.model or EMBEDDED)

    def identity(self) -> StoredIdentity:
        """What answers depend on besides the song, the question and the seed.

        Raises:
          UserError: there is no such model.
        """
        usage = Usage.of(self.source, self.adapter, self.style)
        parts = usage.model
        generate = identity_of(usage.generate)
        del generate["batch_size"]  # It changes no answer.
        features = identity_of(usage.features)
        del features["batch_size"]
        asked = {
            "prompt": identity_of(usage.prompt),
            "features": features,
            "windows": usage.max_windows,
            "generate": generate,
        }
        digests = {
            kind: weights.digest(source, kind)[:16]
            for kind, source in (
                ("encoder", parts.encoder),
                ("language_model", parts.language_model),
                ("adapter", parts.adapter),
            )
        }
        return {
            **digests,
            "numbers": " ".join(filter(None, (parts.dtype, parts.quantization))),
            "asked": fingerprint(asked),
        }


@runtime_checkable
class Asker(Protocol):
    """What listens to songs and answers questions about them."""

    @property
    def rate(self) -> int:
        """Samples per second of what it hears."""
        ...

    def hear(self, song: Song) -> Excerpt:
        """Listens to a whole song."""
        ...

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, in order, decoded as the model's own settings say."""
        ...

    def drawn(
        self, requests: Sequence[Request], *, seed: int, temperature: float
    ) -> list[Answer]:
        """Other answers, in order, which are drawn."""
        ...

    def scores(self, requests: Sequence[OptionRequest]) -> list[list[OptionScore]]:
        """What the options of each request cost, in order."""
        ...


@dataclass(frozen=True)
class ModelAsker:
    """An `Asker` with a model.

    Attributes:
      model: encoder, adapter and language model.
      rows: questions that are answered together.
    """

    model: Model
    rows: int

    @classmethod
    def load(cls, sources: Sources, rows: int | None) -> "ModelAsker":
        """Loads a model onto the first device.

        Args:
          sources: which one.
          rows: as above; None for what the model's own settings say.

        Raises:
          UserError: as in `Model.load`.
        """
        model = Model.load(sources.source, adapter=sources.adapter, style=sources.style)
        return cls(model, rows or model.usage.generate.batch_size)

    @property
    def rate(self) -> int:
        """Samples per second of what it hears."""
        return self.model.listener.mert.config.sample_rate

    def hear(self, song: Song) -> Excerpt:
        """Listens to a whole song; of a long one, to windows all over it."""
        return self.model.hear(song)

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, in order, decoded as the model's own settings say."""
        return self._answered(requests, {})

    def drawn(
        self, requests: Sequence[Request], *, seed: int, temperature: float
    ) -> list[Answer]:
        """Other answers, in order, which are drawn; those of a seed are the same."""
        changes = {"seed": seed, "temperature": temperature, "beams": 1}
        return self._answered(requests, changes)

    def scores(self, requests: Sequence[OptionRequest]) -> list[list[OptionScore]]:
        """What the options of each request cost, in order."""
        model = self.model
        return score_options(
            model.answerer, model.usage.prompt, requests, rows=self.rows
        )

    def _answered(self, requests: Sequence[Request], changes: dict) -> list[Answer]:
        usage = self.model.usage
        config = replace(usage.generate, batch_size=self.rows, **changes)
        found = dict(answer_each(self.model.answerer, usage.prompt, requests, config))
        return [found[place] for place in range(len(requests))]
