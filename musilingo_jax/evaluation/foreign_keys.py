"""Which keys of other projects' outputs hold the clip, the question and the answers.

    ours         CMI-Bench        MMAU, Mellow     MuChoMusic
    clip         audioid          audio_id         audio_path
    question     question         question         prompt
    reference    correct_answer   answer           answers, answer_orders
    answer       response         model_output     model_output
    options                       choices          answers

Keys are guessed from the first row alone, and told. `--predictions_keys` names others.
"""

import ast
from collections.abc import Mapping
from typing import Any

from musilingo_jax.evaluation.metrics.choices import LETTERS
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import printable

REQUIRED = ("clip", "question", "reference", "answer")
OPTIONAL = ("attribute", "value", "options", "cut")
FLAG = "--predictions_keys"

# Other names of our keys, the more telling ones first.
_OTHERS = {
    "clip": (
        *("clip_id", "audio_id", "audioid", "audio_path", "audio_name", "audio_file"),
        *("audio", "file_name", "filename", "wav_path", "wav", "file", "path", "ytid"),
        *("track_id", "song_id", "song", "video_id", "youtube_id", "uuid", "id"),
    ),
    "question": ("instruction", "prompt", "query", "input"),
    "reference": (
        *("references", "correct_answer", "ground_truth", "groundtruth", "gt_answer"),
        *("answer_gt", "reference_answer", "gold", "target", "label", "ref", "gt"),
    ),
    "answer": (
        *("model_output", "model_prediction", "model_response", "model_answer"),
        *("prediction", "predicted_answer", "predicted", "response", "hypothesis"),
        *("generated_text", "generated", "output", "pred"),
    ),
    "options": ("choices",),
}
_SPLIT_OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d", "choice_e")
_ORDERS = "answer_orders"  # MuChoMusic: 0 is where the right one is


def parse(pairs: list[str] | None) -> dict[str, str]:
    """The flag: our key → theirs; "" for a question that there is none of.

    Raises:
      UsageError: a part is not of the form ours=theirs, or names no key of ours.
    """
    found = {}
    for pair in pairs or []:
        ours, separator, theirs = pair.partition("=")
        ours, theirs = ours.strip(), theirs.strip()
        if not separator or ours not in (*REQUIRED, *OPTIONAL):
            raise UsageError(
                f"{FLAG}={','.join(pairs or [])}: {pair!r} must be OURS=THEIRS, with "
                f"one of {', '.join((*REQUIRED, *OPTIONAL))} for OURS, such as "
                "answer=model_output"
            )
        if not theirs and ours != "question":
            raise UsageError(f"{FLAG}: {ours}= lacks the name of a key")
        found[ours] = theirs
    return found


def find(
    row: Mapping[str, Any], named: Mapping[str, str], where: str
) -> dict[str, str]:
    """Our key → the key of a row that holds it.

    Args:
      row: the first row of a file.
      named: as `parse` returns it; these are not guessed.
      where: the row is, for messages.

    Raises:
      UserError: a key cannot be guessed, or one that was named is not there.
    """
    for ours, theirs in named.items():
        if theirs and theirs not in row:
            raise UserError(
                f"{where}: there is no key {printable(theirs)!r}, which {FLAG} names "
                f"for {ours}; {_keys(row)}"
            )
    found = dict(named)
    free = [key for key in row if key not in named.values()]
    lower = {key.strip().lower(): key for key in reversed(free)}

    def guess(ours: str, names: tuple[str, ...]) -> None:
        theirs = next((lower[name] for name in names if name in lower), None)
        if ours not in found and theirs is not None:
            found[ours] = theirs
            del lower[theirs.strip().lower()]

    # An "answer" beside a "model_output" is the right one.
    if "reference" not in lower and "answer" in lower:
        guess("answer", _OTHERS["answer"])
        if "answer" in found:
            guess("reference", ("answer",))
    for ours in (*REQUIRED, *OPTIONAL):
        guess(ours, (ours, *_OTHERS.get(ours, ())))
    missing = [ours for ours in REQUIRED if ours not in found]
    if missing == ["reference"] and _is_muchomusic(row):
        missing = []
    if missing:
        ours = missing[0]
        raise UserError(
            f"{where} lacks {', '.join(missing)}; {_keys(row)}. If one of them is "
            f"meant, name it, as in {FLAG}={ours}=KEY"
        )
    return {ours: found[ours] for ours in (*REQUIRED, *OPTIONAL) if ours in found}


def ours(row: Mapping[str, Any], keys: Mapping[str, str], where: str) -> dict[str, Any]:
    """A row with our keys.

    Raises:
      UserError: a key is missing.
    """
    missing = [key for key in keys.values() if key and key not in row]
    required = [keys.get(each) for each in REQUIRED]
    if lacking := [key for key in missing if key in required]:
        raise UserError(
            f"{where} lacks {', '.join(map(printable, lacking))}; {_keys(row)}"
        )
    found = {each: row.get(key) if key else "" for each, key in keys.items()}
    for each in OPTIONAL:  # The first row may lack them.
        names = (name for name in (each, *_OTHERS.get(each, ())) if name in row)
        if each not in keys and (name := next(names, None)):
            found[each] = row[name]
    if isinstance(clips := found["clip"], list) and len(clips) == 1:
        found["clip"] = clips[0]
    if "options" not in found and _SPLIT_OPTIONS[0] in row:
        options = [row.get(name) for name in _SPLIT_OPTIONS]
        found["options"] = [option for option in options if option not in (None, "")]
    if "reference" not in found and _is_muchomusic(row):
        found["options"] = row["answers"]
        found["reference"] = row["answers"][row[_ORDERS].index(0)]
    found["options"] = _options(found.get("options"))
    return found


def told(keys: Mapping[str, str]) -> str | None:
    """A sentence on the keys that were not named as ours; None if all were."""
    others = [
        f"{theirs} as {each}"
        for each, theirs in keys.items()
        if theirs and theirs != each
    ]
    return f"read {printable(', '.join(others))}." if others else None


def _options(options: Any) -> Any:
    """Options as a list, also from {"A": …, "B": …} or a list that is written out."""
    if isinstance(options, dict) and sorted(options) == list(LETTERS[: len(options)]):
        return [options[letter] for letter in sorted(options)]
    if isinstance(options, str) and options.strip().startswith("["):
        try:
            return ast.literal_eval(options.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return options
    return options or None


def _is_muchomusic(row: Mapping[str, Any]) -> bool:
    options, order = row.get("answers"), row.get(_ORDERS)
    return (
        isinstance(options, list)
        and isinstance(order, list)
        and 0 in order
        and len(order) == len(options)
    )


def _keys(row: Mapping[str, Any]) -> str:
    return f"it has the keys {printable(', '.join(map(str, row)) or 'none')}"
