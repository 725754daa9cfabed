"""How often captions of composed clips are wrong, before and after they are checked.

    python -m musilingo_jax.caption musilingo_jax/assets/musilingo-tiny-corpus/clips \
        --out=runs/captions
    python benchmarks/caption_truth.py --rows=runs/captions/captions.jsonl

The true values of the clips are in the embedded corpus. A caption is wrong about a key
or the drums if it states another value than the true one. The genre is compared with
the clip's style; with `--tags=benchmarks/styles.txt` it is chosen among all styles.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from musilingo_jax.corpora.songs import EMBEDDED
from musilingo_jax.corpora.statements import values
from musilingo_jax.corpora.statements.keys import named_key, named_keys

SPLITS = ("train", "test")


def keys(text: str, true: str) -> list[bool]:
    """Whether each key that a text states is the true one."""
    return [key == named_key(true) for key in named_keys(text)]


def drums(text: str, true: str) -> list[bool]:
    """Whether what a text says of drums is true."""
    there = true == "drums"
    said = [True] * len(values.stated(text, ("drums",), plural=True))
    said += [False] * len(values.denied(text, ("drums",), plural=True))
    return [each == there for each in said]


FACTS: Mapping[str, Callable[[str, str], list[bool]]] = {"key": keys, "drums": drums}


def shares(texts: Iterable[tuple[str, str]], fact: str) -> str:
    """How many texts are about a fact, and how many of them are wrong."""
    found = [FACTS[fact](text, true) for text, true in texts]
    about = [each for each in found if each]
    wrong = sum(not all(each) for each in about)
    share = f" ({100 * wrong / len(about):.1f} %)" if about else ""
    return f"{wrong} of {len(about)}{share}"


def main() -> None:
    """Prints a line for each fact and split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="captions.jsonl")
    given = parser.parse_args()
    truth: dict[str, dict[str, str]] = defaultdict(dict)
    splits = {}
    (corpus,) = EMBEDDED.values()
    for line in corpus.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        name = Path(record["audio"]).name
        splits[name] = record["split"]
        if "attribute" in record:
            truth[name][record["attribute"]] = record["value"]
    rows = [
        json.loads(line) for line in given.rows.read_text(encoding="utf-8").splitlines()
    ]
    for fact in FACTS:
        for split in SPLITS:
            some = [
                (row["caption"], truth[row["audio"]][fact])
                for row in rows
                if splits[row["audio"]] == split
            ]
            own = shares(((c["check"]["own"], true) for c, true in some), fact)
            kept = shares(((c["value"] or "", true) for c, true in some), fact)
            print(f"{fact}, {split}: wrong {own} of the model's own, {kept} afterwards")
    right = sum(row["genre"]["value"] == truth[row["audio"]]["style"] for row in rows)
    print(f"genre: right {right} of {len(rows)} ({100 * right / len(rows):.1f} %)")


if __name__ == "__main__":
    main()
