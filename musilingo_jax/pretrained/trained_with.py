"""What an adapter was trained with: recorded in its `config.json`, and compared.

    "trained_with": {
      "encoder": {"name": "musilingo-tiny-1", "digest": "7de72342…"},
      "language_model": {"name": "musilingo-tiny-1", "digest": "18747911…"}
    }

An adapter turns the vectors of one encoder into those of one language model. Between
two others of the same widths it makes nonsense, and nothing fails. So whoever loads the
three together calls `check`, before the language model is loaded.

The digests are those of `weights.digest`: of what the files hold, not of the type or
the quantization in memory. One adapter is used in float32, bfloat16 and int8. Files
that were rounded to another type, or merged with a LoRA, are another model; a LoRA that
is added while its base is read is part of the digest. The names are for people.

Adapters of runs that are older have no such entry. The folder of the run has it for
them: `config.json` names the two parts, `inputs.json` holds their digests.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from musilingo_jax.pretrained import (
    embedded_models,
    model_folder,
    sources,
    tensor_map,
    weights,
)
from musilingo_jax.pretrained.sources import TRAINED_WITH, Part
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import one_line, print_note

INPUTS = "inputs.json"
"""The file of a run with the digests of what its config only names."""

_ADAPTERS_OF_RUNS = ("adapter", "adapter-best")
_FROZEN = ("encoder", "language_model")


@dataclass(frozen=True)
class FrozenPart:
    """An encoder or a language model.

    Attributes:
      name: where it was found; of an embedded one, with its version.
      digest: as of `weights.digest`.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class TrainedWith:
    """The two parts between which an adapter stands.

    Attributes:
      encoder: whose features it reads.
      language_model: whose word embeddings it makes.
    """

    encoder: FrozenPart
    language_model: FrozenPart

    @classmethod
    def of_sources(cls, encoder: str, language_model: str) -> "TrainedWith":
        """What an adapter is trained or used with.

        Raises:
          UserError: as in `weights.digest`.
        """
        given = dict(zip(_FROZEN, (encoder, language_model), strict=True))
        return cls(
            **{
                kind: FrozenPart(
                    embedded_models.exact(source), weights.digest(source, kind)
                )
                for kind, source in given.items()
            }
        )

    @classmethod
    def of_adapter(cls, adapter: Part) -> "TrainedWith | None":
        """What an adapter records, or its run; None if neither does.

        Raises:
          UserError: the record is damaged.
        """
        record = adapter.config.get(TRAINED_WITH)
        if record is None:
            return _of_run(adapter)
        if parts := _parts(record):
            return cls(**parts)
        raise UserError(
            f"{adapter.folder / CONFIG}: {TRAINED_WITH} does not hold the name and the "
            "digest of an encoder and of a language model: restore the file, or take "
            "the entry out, and nothing but widths will be checked"
        )

    @classmethod
    def of_run(
        cls, config: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> "TrainedWith | None":
        """What a run is trained with, from its two files; None if they do not say."""
        features = inputs.get("features")
        if not model_folder.is_run(config) or not isinstance(features, Mapping):
            return None
        model = embedded_models.as_recorded(config["model"])
        digests = (features.get("encoder"), inputs.get("language_model"))
        names = [model.get(kind) or model.get("pretrained") for kind in _FROZEN]
        parts = _parts(
            {
                kind: {"name": name, "digest": digest}
                for kind, name, digest in zip(_FROZEN, names, digests, strict=True)
            }
        )
        return cls(**parts) if parts else None

    def refuse_other(self, given: "TrainedWith", subject: str, otherwise: str) -> None:
        """Checks that two parts are those of the training.

        Args:
          given: the two.
          subject: what was trained, for the message.
          otherwise: what to do where these are to be used all the same.

        Raises:
          UserError: they are not.
        """
        pairs = {kind: (getattr(self, kind), getattr(given, kind)) for kind in _FROZEN}
        others = {k: (t, g) for k, (t, g) in pairs.items() if t.digest != g.digest}
        if not others:
            return
        trained = [f"the {_word(k)} {_shown(t)}" for k, (t, _) in others.items()]
        now = [f"the {_word(kind)} {_shown(g)}" for kind, (_, g) in others.items()]
        wanted = [_remedy(kind, part) for kind, (part, _) in others.items()]
        raise UserError(
            f"{subject} was trained with {' and '.join(trained)}, but is given "
            f"{' and '.join(now)}, with which it would answer nonsense: "
            f"{' and '.join(dict.fromkeys(wanted))}, or {otherwise}"
        )

    def stored(self) -> dict[str, Any]:
        """The form in which a `config.json` holds it."""
        return asdict(self)


def check(adapter: str, encoder: str, language_model: str) -> None:
    """Checks that an adapter is used with what it was trained with, if that is known.

    Args:
      adapter: its source.
      encoder: the source of the encoder.
      language_model: the source of the language model.

    Raises:
      UserError: it was trained with another encoder or language model; or one of the
        three is not found, or is incomplete.
    """
    trained = TrainedWith.of_adapter(sources.find(adapter, "adapter"))
    if trained is None:
        return
    given = TrainedWith.of_sources(encoder, language_model)
    for kind, source in zip(_FROZEN, (encoder, language_model), strict=True):
        if getattr(trained, kind).digest != getattr(given, kind).digest:
            # Of one that lacks a tensor, that is what should be said.
            part = sources.find(source, kind)
            tensor_map.check(
                *weights.blueprint(part), part.tensors(), source=str(part.folder)
            )
    trained.refuse_other(
        given, f"the adapter {adapter}", otherwise="train an adapter anew"
    )


def tell_if_unknown(adapter: str, encoder: str, language_model: str) -> None:
    """Prints a note if `check` cannot know whether three parts belong together.

    Not of a model that comes whole: its parts have one source.

    Raises:
      UserError: as in `TrainedWith.of_adapter`.
    """
    if adapter == encoder == language_model or jax.process_index() != 0:
        return
    if TrainedWith.of_adapter(sources.find(adapter, "adapter")) is None:
        print_note(
            f"note: the adapter {adapter} does not record what it was trained with, "
            f"so only the widths of the encoder {encoder} and of the language model "
            f"{language_model} are checked"
        )


def _of_run(adapter: Part) -> TrainedWith | None:
    """What the run knows in whose folder an adapter is; None if it is in none."""
    run = adapter.folder.parent
    if adapter.folder.name not in _ADAPTERS_OF_RUNS:
        return None
    if not ((run / CONFIG).is_file() and (run / INPUTS).is_file()):
        return None
    return TrainedWith.of_run(read_json(run / CONFIG), read_json(run / INPUTS))


def _parts(record: Any) -> dict[str, FrozenPart] | None:
    """The two parts of a record of any form; None if it does not hold them."""
    found = {}
    for kind in _FROZEN:
        entry = record.get(kind) if isinstance(record, Mapping) else None
        values = entry if isinstance(entry, Mapping) else {}
        name, digest = values.get("name"), values.get("digest")
        if not isinstance(name, str) or not isinstance(digest, str) or not digest:
            return None
        found[kind] = FrozenPart(name, digest)
    return found


def _remedy(kind: str, wanted: FrozenPart) -> str:
    """What to do to get the part that an adapter was trained with."""
    for name in embedded_models.names():
        if weights.digest(name, kind) == wanted.digest:
            return f"give it {name}"
    if embedded_models.missing(wanted.name):
        return f"install a version of musilingo_jax that has {one_line(wanted.name)}"
    return f"give it that {_word(kind)}"


def _shown(part: FrozenPart) -> str:
    return f"{one_line(part.name)} (digest {one_line(part.digest[:8])})"


def _word(kind: str) -> str:
    return kind.replace("_", " ")
