"""BERTScore (Zhang et al. 2020), by its library, on a model that the user names."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.metrics.wordnet import Absent

NOT_NAMED = (
    "no model was named: --bertscore=roberta-large (a name on the hub, or a folder), "
    "with `pip install 'musilingo-jax[eval]'`"
)
# What the published numbers are made with: `bert_score.score(…, lang="en")`.
_PUBLISHED = ("roberta-large", "FacebookAI/roberta-large")
_PUBLISHED_SHAPE = {"model_type": "roberta", "num_hidden_layers": 24}
_AT_ONCE = 64


class BertScore:
    """A masked language model that compares texts by its hidden states."""

    def __init__(self, model: str, layer: int | None):
        """Loads the model.

        Args:
          model: a name on the hub, or a folder.
          layer: whose output is compared; None for the one its authors chose, which
            they did for the well-known models.

        Raises:
          Absent: the library or the model is not here, or the layer is not known.
        """
        try:
            from bert_score import BERTScorer
            from bert_score.utils import model2layers
        except ImportError as error:
            raise Absent(
                f"{error.name} is not installed: pip install 'musilingo-jax[eval]'"
            ) from error
        known = Path(model).name if Path(model).is_dir() else model
        layer = layer or model2layers.get(model) or model2layers.get(known)
        if layer is None and model in _PUBLISHED:
            layer = model2layers["roberta-large"]
        if layer is None:
            raise Absent(
                f"{model} is none of the models whose best layer bert_score knows: "
                "say which with --bertscore_layer"
            )
        try:
            self._scorer = BERTScorer(
                model_type=model,
                num_layers=layer,
                batch_size=_AT_ONCE,
                rescale_with_baseline=False,
            )
            config = self._scorer._model.config.to_dict()
        # The hub, the file formats and torch each have their own errors.
        except Exception as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise Absent(f"the model {model} cannot be loaded: {said[0]}") from error
        # Without a limit of its own, a tokenizer lets texts through that the model
        # cannot take. RoBERTa's positions begin at 2.
        places = config["max_position_embeddings"] - 2
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, places)
        self.name = f"{known}, layer {layer}"
        self.published = _is_published(model, layer, config)

    def score(
        self,
        answers: Sequence[str],
        references: Sequence[str],
        done: Callable[[int], Any],
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """Recall and F1 of each answer; 0 where it or its reference is empty.

        Args:
          answers: what was said.
          references: what should be.
          done: told of every so many rows.
        """
        recall, f1 = np.zeros((2, len(answers)))
        full = [
            i
            for i, pair in enumerate(zip(answers, references, strict=True))
            if all(text.strip() for text in pair)
        ]
        # Of like length together, as the library does it, but with a sign of life.
        full.sort(key=lambda i: -len(answers[i]) - len(references[i]))
        done(len(answers) - len(full))
        for start in range(0, len(full), 4 * _AT_ONCE):
            part = full[start : start + 4 * _AT_ONCE]
            _, of_reference, mean = self._scorer.score(
                [answers[i] for i in part], [references[i] for i in part]
            )
            recall[part], f1[part] = of_reference.numpy(), mean.numpy()
            done(len(part))
        return recall, f1


def _is_published(model: str, layer: int, config: dict[str, Any]) -> bool:
    """Whether these are the weights and the layer of the published numbers.

    A folder is taken at its word: its config must have RoBERTa-large's shape, and the
    name or path by which it was saved must be RoBERTa-large's.
    """
    if layer != 17:
        return False
    if not os.path.isdir(model):
        return model in _PUBLISHED
    said = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    named = Path(model).name == "roberta-large" or said.get("_name_or_path") in (
        _PUBLISHED
    )
    return named and config.items() >= _PUBLISHED_SHAPE.items()
