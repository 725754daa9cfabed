"""BERTScore (Zhang et al. 2020), by its library, with a model that the user names."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.metrics.wordnet import Absent
from musilingo_jax.runtime.json_files import read_json

NOT_NAMED = (
    "no model was given: --bertscore=roberta-large (a name on the hub, or a folder), "
    "with `pip install 'musilingo-jax[eval]'`"
)
# The model of the published numbers: `bert_score.score(…, lang="en")`.
_PUBLISHED = ("roberta-large", "FacebookAI/roberta-large")
_PUBLISHED_SHAPE = {"model_type": "roberta", "num_hidden_layers": 24}
_PUBLISHED_LAYER = 17
_BATCH = 64


class BertScore:
    """A masked language model whose hidden states of two texts are compared."""

    def __init__(self, model: str, layer: int | None):
        """Loads the model.

        Args:
          model: a name on the hub, or a folder.
          layer: the layer whose output is compared; None for the one that the authors
            of BERTScore chose, as they did for well-known models.

        Raises:
          Absent: the library or the model is not available, or no layer is known.
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
                f"bert_score does not know the best layer of {model}: choose one with "
                "--bertscore_layer"
            )
        try:
            self._scorer = BERTScorer(
                model_type=model,
                num_layers=layer,
                batch_size=_BATCH,
                rescale_with_baseline=False,
            )
            config = self._scorer._model.config.to_dict()
        # The hub, the file formats and torch each have errors of their own.
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise Absent(f"the model {model} cannot be loaded: {reason[0]}") from error
        # A tokenizer without a limit would pass texts that are too long for the model.
        # RoBERTa's positions begin at 2.
        positions = config["max_position_embeddings"] - 2
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
        self.name = f"{known}, layer {layer}"
        self.published = _is_published(model, layer, config)

    def score(
        self,
        answers: Sequence[str],
        references: Sequence[str],
        done: Callable[[int], Any],
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """Recall and F1 of each answer; 0 if it or its reference is empty.

        Args:
          answers: the answers.
          references: the reference of each.
          done: is called with the number of rows done since the last call.
        """
        recall, f1 = np.zeros((2, len(answers)))
        full = [
            i
            for i, pair in enumerate(zip(answers, references, strict=True))
            if all(text.strip() for text in pair)
        ]
        # Texts of similar length together, as the library does it, but with progress.
        full.sort(key=lambda i: -len(answers[i]) - len(references[i]))
        done(len(answers) - len(full))
        for start in range(0, len(full), 4 * _BATCH):
            part = full[start : start + 4 * _BATCH]
            # The library's annotation has the shape of an option that is not used here.
            scores: Any = self._scorer.score(
                [answers[i] for i in part], [references[i] for i in part]
            )
            _, recall[part], f1[part] = (score.numpy() for score in scores)
            done(len(part))
        return recall, f1


def _is_published(model: str, layer: int, config: dict[str, Any]) -> bool:
    """Whether these are the weights and the layer of the published numbers.

    For a folder its config decides: it must have the shape of RoBERTa-large, and the
    folder, or the path that it was saved from, must be named like RoBERTa-large.
    """
    if layer != _PUBLISHED_LAYER:
        return False
    if not os.path.isdir(model):
        return model in _PUBLISHED
    saved = read_json(Path(model) / "config.json")
    named = Path(model).name == "roberta-large"
    named = named or saved.get("_name_or_path") in _PUBLISHED
    return named and config.items() >= _PUBLISHED_SHAPE.items()
