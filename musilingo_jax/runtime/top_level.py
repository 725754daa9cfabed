"""The top level of an experiment's config, and the sections that no room reads alone.

    config.run = "runs/mine"        config.corpus = …      config.stage1 = …
    config.seed = 0                 config.features = …    config.stage2 = …
    config.stages = (…)             config.model = …
    config.wandb = ""               config.mesh = …
                                    config.generate = …

Each program names what it reads of it. What is wrong is so found before any work, and
before a library is given a value of another kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import check_keys, plain, setting

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class MeshSection:
    """How many devices there are along each axis; −1 once, for all that are left."""

    data: int = setting(at_least=-1)
    fsdp: int = setting(at_least=-1)
    tensor: int = setting(at_least=-1)


@dataclass(frozen=True)
class CorpusSection:
    """Where the records are, and the names of their splits.

    Attributes:
      path: of the corpus; "" if there is a mixture.
      mixture: name → path and weight of several corpora.
      train_split, validation_split, test_split: "" for no validation. A config has
        those that its programs read; one for a feature cache has none.
    """

    path: str
    mixture: Mapping = setting()
    train_split: str = setting()
    validation_split: str = setting()
    test_split: str = setting()


@dataclass(frozen=True)
class TopLevel:
    """What is not in a section, and the sections.

    Attributes:
      run: the folder that everything is written to.
      seed: what all draws are derived from.
      wandb: a project of Weights & Biases; "" for none.
      stages: names of the sections of stages, in the order of training.
      corpus, features, model, mesh, generate, measure: the sections.
    """

    run: str
    seed: int = setting(at_least=0)
    wandb: str = setting()
    stages: tuple[str, ...] = setting()
    corpus: Mapping = setting()
    features: Mapping = setting()
    model: Mapping = setting()
    mesh: MeshSection = setting()
    generate: Mapping = setting()
    measure: Mapping = setting()


def check_top_level(
    config: "ConfigDict | Mapping[str, Any]", keys: Sequence[str], where: str
) -> None:
    """Checks the kinds of some keys of a config.

    Args:
      config: of an experiment.
      keys: what is read of it; of the section `corpus`, the names of splits by
        themselves, as "corpus.test_split".
      where: what to call the config in messages.

    Raises:
      UserError: one of them is missing or has a value of another kind; or the section
        of the corpus has a key that nothing reads.
    """
    check_keys(TopLevel, config, [key for key in keys if "." not in key], where)
    if "corpus" in keys:
        known = [entry.name for entry in fields(CorpusSection)]
        corpus = plain(config["corpus"], f"{where}.corpus")
        splits = {key.partition(".")[2] for key in keys if key.startswith("corpus.")}
        read = {"path", *splits, *corpus.keys()}
        if unknown := sorted(map(str, read.difference(known))):
            raise UserError(
                f"{where}.corpus has {', '.join(unknown)}, which nothing reads: is it "
                "misspelt?"
            )
        check_keys(CorpusSection, corpus, sorted(read), f"{where}.corpus")
