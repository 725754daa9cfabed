"""What a job has made: counts, a sample of pairs, a page, a picture."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musilingo_jax.instruction import filters
from musilingo_jax.instruction.formats import Told
from musilingo_jax.instruction.pairs import FAMILIES, number
from musilingo_jax.runtime.palette import BLUE, INK, MUTED, RULE
from musilingo_jax.runtime.printable import one_line

# Pairs that are shown.
_SHOWN = 20
_BOXES: dict[str, Any] = {"showfliers": False, "medianprops": {"color": BLUE}}


@dataclass(frozen=True)
class Summary:
    """Counts of the rows of a job.

    Attributes:
      clips: how many there are.
      pairs: of each of them, those that are used.
      families: family → pairs.
      parses: how replies were read → how many.
      broken: entries of replies that are no pairs.
      cut: replies that had more to say.
      refused: filter → pairs.
      words: family → words of each answer.
      usage: tokens read and written.
    """

    clips: int
    pairs: Sequence[int]
    families: Mapping[str, int]
    parses: Mapping[str, int]
    broken: int
    cut: int
    refused: Mapping[str, int]
    words: Mapping[str, Sequence[int]]
    usage: tuple[int, int]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Summary":
        """The summary of the rows that are asked for."""
        per_clip: Counter[str] = Counter()
        families: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        words: dict[str, list[int]] = {}
        for row in rows:
            per_clip[row["clip"]] += len(row["pairs"])
            families[row["family"]] += len(row["pairs"])
            refused.update(pair["reason"] for pair in row["refused"])
            for pair in row["pairs"]:
                words.setdefault(row["family"], []).append(len(pair["answer"].split()))
        usage = [row.get("usage", (0, 0)) for row in rows]
        return cls(
            clips=len(per_clip),
            pairs=list(per_clip.values()),
            families={name: families[name] for name in FAMILIES if name in families},
            parses=dict(Counter(row["parse"] for row in rows).most_common()),
            broken=sum(row.get("broken", 0) for row in rows),
            cut=sum(row.get("cut", False) for row in rows),
            refused={r: refused[r] for r in filters.REASONS if refused[r]},
            words=words,
            usage=(sum(read for read, _ in usage), sum(wrote for _, wrote in usage)),
        )

    @property
    def used(self) -> int:
        """Pairs that are used."""
        return sum(self.pairs)

    def lines(self) -> list[str]:
        """The counts, a line each."""
        refused = sum(self.refused.values())
        found = self.used + refused
        lines = [
            f"pairs      {self.used:,} of {self.clips:,} clips, "
            f"{self.used / max(1, self.clips):.1f} each "
            f"({min(self.pairs, default=0)} to {max(self.pairs, default=0)})"
        ]
        if without := sum(not count for count in self.pairs):
            lines.append(f"none for   {without:,} clips")
        families = (f"{name} {count:,}" for name, count in self.families.items())
        lines.append(f"families   {', '.join(families)}")
        parses = (f"{name} {count:,}" for name, count in self.parses.items())
        lines.append(f"read       {', '.join(parses)}")
        if self.broken or self.cut:
            lines.append(
                f"           {self.broken:,} entries are no pairs, {self.cut:,} "
                "replies are cut"
            )
        lines.append(f"refused    {refused:,} of {found:,}, {_share(refused, found)}")
        width = max(map(len, filters.REASONS))
        for reason, count in self.refused.items():
            lines.append(f"  {reason:{width}} {count:,}, {_share(count, found)}")
        return lines

    def picture(self) -> Any:
        """Pairs of a clip, words of an answer, and refused pairs, as a figure."""
        # Here and not above, because it takes a second.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 3.6), dpi=120, layout="constrained")
        clips, words, refused = figure.subplots(1, 3)
        most = max(self.pairs, default=0)
        clips.hist(self.pairs, np.arange(-0.5, most + 1.5), color=BLUE)
        clips.set_title("pairs of a clip", color=INK)
        lengths = [self.words.get(name, []) for name in self.families]
        words.boxplot(lengths, tick_labels=list(self.families), **_BOXES)
        words.set_title("words of an answer", color=INK)
        names = list(self.refused) or ["none"]
        counts = [self.refused.get(name, 0) for name in names]
        refused.barh(names[::-1], counts[::-1], color=BLUE)
        refused.set_title("refused pairs", color=INK)
        for axes in (clips, words, refused):
            axes.tick_params(colors=MUTED, labelsize=8)
            axes.grid(color=RULE, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        return figure


def sample(told: Sequence[Told], seed: int) -> list[Told]:
    """Some pairs, the same for the same seed, in the order of the clips.

    Args:
      told: all pairs.
      seed: of the choice.
    """
    ranked = sorted(
        range(len(told)),
        key=lambda place: number("sample", seed, place, told[place].pair.question),
    )
    return [told[place] for place in sorted(ranked[:_SHOWN])]


def shown(told: Iterable[Told]) -> list[str]:
    """Pairs as lines of text."""
    lines = []
    for subject, family, pair in told:
        lines.append(f"{one_line(subject.name)} ({family})")
        lines.append(f"  Q: {one_line(pair.question)}")
        lines.append(f"  A: {one_line(pair.answer)}")
    return lines


def page(summary: Summary, told: Sequence[Told], seed: int, picture: str) -> str:
    """The report, as Markdown.

    Args:
      summary: of all rows.
      told: all pairs.
      seed: of the sample.
      picture: the file of the picture.
    """
    counts, some = "\n".join(summary.lines()), sample(told, seed)
    pairs = "\n".join(shown(some))
    return (
        f"# Questions and answers\n\n```text\n{counts}\n```\n\n"
        f"![Pairs of a clip, words of an answer, refused pairs]({picture})\n\n"
        f"## {len(some)} pairs, drawn with the seed {seed}\n\n```text\n{pairs}\n```\n"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"
