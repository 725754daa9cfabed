"""How CMI-Bench reads answers (Ma et al. 2025, ISMIR; nicolaus625/CMI-bench)."""

import warnings
from collections.abc import Collection

import mir_eval.beat
import numpy as np
from jaxtyping import Float

from musilingo_jax.benchmarks.llark_rules import KEYS
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.evaluation.metrics import keys

_FLATS = {"c": "db", "d": "eb", "f": "gb", "g": "ab", "a": "bb"}


def plain(text: str) -> str:
    """A text without spaces, hyphens, underscores, apostrophes and full stops."""
    for sign in "_-' .":
        text = text.replace(sign, "")
    return text.replace("#", "♯").lower()


def is_class(answer: str, right: str, classes: Collection[str]) -> bool:
    """Whether an answer names the right class and no other, by the published rule.

    As letters anywhere: so a class that has another one in it is never right, such as
    “trillo” beside “trill”, or the pitch 100 beside 10.

    Args:
      answer: the answer.
      right: the right class.
      classes: all classes.
    """
    said, wanted = plain(answer), plain(right)
    others = {plain(each) for each in classes} - {wanted}
    return wanted in said and not any(other in said for other in others)


def key_score(answer: str, right: str) -> float:
    """MIREX's weighted score by the published rule.

    Without spaces and digits, the first of 24 names, in the order C major, Db major … B
    minor, that is anywhere in the answer: “not C major but G minor” is C major, and
    “Ab major” contains “b major”, which comes later, so it is right. Sharps are read
    at the very beginning only; elsewhere “C# minor” is none. Two letters are a key,
    three with “m” at the end, too.
    """
    said = "".join(letter for letter in answer.lower() if letter != " ")
    said = "".join(letter for letter in said if not letter.isdigit())
    if len(said) <= 3 and said.endswith("m"):
        said += "inor"
    elif len(said) <= 2:
        said += "major"
    if said[1:2] in ("♯", "#"):
        if said[0] not in _FLATS:
            return 0.0  # The published script fails here, and counts 0.
        said = _FLATS[said[0]] + said[2:]
    named = next((key for key in KEYS if key.lower().replace(" ", "") in said), None)
    return 0.0 if named is None else keys.weighted_score(named_key(named), right)


def beats(text: str) -> Float[np.ndarray, " beats"]:
    """The times in a text such as “0.5s, 1:02.5s”, in seconds, in order.

    Raises:
      ValueError: what begins with a digit is no time.
    """
    times = []
    for part in text.split(","):
        part = part.strip().replace("s", "")
        if not part[:1].isdigit():
            continue
        minutes, colon, seconds = part.partition(":")
        if not colon:
            times.append(float(part))
        elif rest := seconds.partition(":")[0]:
            times.append(60 * int(minutes) + float(rest))
    return np.array(sorted(times))


def beat_scores(answer: str, right: str) -> tuple[float, float, float]:
    """F-measure, CMLt and AMLt (mir_eval) of the beats in an answer.

    One word that begins with a digit and is no time makes all of them 0, and so does an
    answer without times.
    """
    try:
        truth, said = beats(right), beats(answer)
    except ValueError:
        return 0.0, 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of answers without beats.
        return _compared(truth, said)


def _compared(
    truth: Float[np.ndarray, " true"], said: Float[np.ndarray, " said"]
) -> tuple[float, float, float]:
    """As `beat_scores`, of times; 0 where the published script fails."""
    try:
        measure = mir_eval.beat.f_measure(truth, said)
    except ValueError:
        return 0.0, 0.0, 0.0
    try:
        _, strict, _, loose = mir_eval.beat.continuity(truth, said)
    except (ValueError, IndexError, ZeroDivisionError):
        strict = loose = 0.0
    return float(measure), float(strict), float(loose)
