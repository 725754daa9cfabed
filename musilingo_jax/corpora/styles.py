"""The attributes of composed pieces, and how each is made audible.

A style can be checked without reading music: it is a bar of signs per instrument.
"""

from dataclasses import dataclass

TONICS = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A")
TONICS += ("B flat", "B")
MODES = ("major", "minor")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "style": ("rock", "jazz", "waltz", "march", "ballad", "techno", "reggae"),
    "lead": ("piano", "guitar", "organ", "violin", "flute", "trumpet"),
    "tempo": ("slow", "medium", "fast"),
    "mode": MODES,
    "key": tuple(f"{tonic} {mode}" for mode in MODES for tonic in TONICS),
    "drums": ("drums", "no drums"),
}

# The minor scale is the harmonic one: its leading tone and its major dominant tell
# A minor from C major, which has the same white keys.
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 11)}
# Scale degrees from 0. They are the same for both modes, so that a progression does not
# reveal the mode; each begins on the tonic and leads back to it.
PROGRESSIONS = (
    (0, 3, 4, 0),
    (0, 1, 4, 0),
    (0, 3, 0, 4),
    (0, 5, 3, 4),
    (0, 5, 1, 4),
    (0, 5, 4, 0),
)
# Beats per minute. The gaps keep each class clear of the next, and of its double.
TEMPI = {"slow": (60, 80), "medium": (96, 118), "fast": (140, 176)}
# General MIDI programs (from 0) that play a lead, and the pitches they play.
LEADS = {
    "piano": ((0, 1, 3), (62, 86)),
    "guitar": ((24, 25, 26, 27), (57, 79)),
    "organ": ((16, 17, 18, 19), (60, 84)),
    "violin": ((40, 110), (62, 88)),
    "flute": ((72, 73, 74, 75), (67, 91)),
    "trumpet": ((56, 59), (60, 80)),
}
# Every program that sounds like a family, also in the accompaniment.
FAMILIES = {
    "piano": range(4),
    "guitar": range(24, 32),
    "organ": range(16, 21),
    "violin": (40, 41, 110),
    "flute": range(72, 80),
    "trumpet": (56, 59),
}
# Keys of the General MIDI drum map.
DRUM_KEYS = {"kick": (35, 36), "snare": (37, 38, 39, 40), "hat": (42, 44, 46, 49, 51)}
# Melody rhythms in eighths, from calm to busy.
RHYTHMS = {
    4: ((4,), (2, 2), (3, 1), (2, 1, 1), (1, 1, 2), (1, 1, 1, 1)),
    6: ((6,), (4, 2), (2, 2, 2), (3, 1, 2), (2, 1, 1, 2), (2, 2, 1, 1)),
}


@dataclass(frozen=True)
class StyleLayer:
    """One accompanying instrument: programs that may play it, and bars to draw from.

    A bar is a string with one sign per eighth note; `.` is nothing.
    Bass: `r` root, `5` fifth, `o` octave, `w` a walking note. Chords: `x` the chord.
    Figure: a digit is a chord tone counted from below. Drums: `x`, or `X` accented.
    """

    programs: tuple[int, ...]
    bars: tuple[str, ...]
    length: float  # of a note, in eighths; the next note or chord ends it earlier


@dataclass(frozen=True)
class Style:
    """What makes a style audible: its metre, swing, voicing and layers."""

    beats: int  # in a bar
    swing: float  # where the second eighth of a beat falls; 0.5 is straight
    voicing: str  # "close", "open" or "seventh"
    bass: StyleLayer
    chords: StyleLayer
    figure: StyleLayer | None
    drums: tuple[tuple[int, str], ...]  # key of the drum map, bar


STYLES = {
    "rock": Style(
        beats=4,
        swing=0.5,
        voicing="open",
        bass=StyleLayer((33, 34), ("rrrrrrrr", "rrr5rrr5", "r.rrr.rr"), 0.9),
        chords=StyleLayer((29, 30), ("x.xxx.xx", "xxxxxxxx", "x..xx..x"), 0.9),
        figure=None,
        drums=((36, "X...Xx.."), (38, "..X...X."), (42, "XxXxXxXx")),
    ),
    "jazz": Style(
        beats=4,
        swing=0.66,
        voicing="seventh",
        bass=StyleLayer((32,), ("r.w.r.w.", "r.w.w.w."), 1.9),
        chords=StyleLayer((0, 4, 26), ("x..x....", "...x..x.", "x..x...x"), 1.2),
        figure=None,
        drums=((51, "X.XxX.Xx"), (44, "..x...x."), (36, "x...x...")),
    ),
    "waltz": Style(
        beats=3,
        swing=0.5,
        voicing="close",
        bass=StyleLayer((43, 32), ("r.....",), 2.0),
        chords=StyleLayer((21, 48, 0), ("..x.x.",), 1.0),
        figure=None,
        drums=((36, "X....."), (37, "..x.x."), (51, "X.x.x.")),
    ),
    "march": Style(
        beats=4,
        swing=0.5,
        voicing="close",
        bass=StyleLayer((58, 57), ("r...5...",), 1.2),
        chords=StyleLayer((60, 61), ("..x...x.",), 0.8),
        figure=None,
        drums=((35, "X...X..."), (38, "x.X.x.Xx"), (49, "X.......")),
    ),
    "ballad": Style(
        beats=4,
        swing=0.5,
        voicing="close",
        bass=StyleLayer((32, 33, 35), ("r...r...",), 4.0),
        chords=StyleLayer((48, 49, 89), ("x.......",), 8.0),
        figure=StyleLayer((46, 24, 4), ("01231323", "02132312", "01213121"), 2.0),
        drums=((36, "X...x..."), (37, "..x...x."), (42, "x.x.x.x.")),
    ),
    "techno": Style(
        beats=4,
        swing=0.5,
        voicing="close",
        bass=StyleLayer((38, 39), (".r.r.r.r", ".r.o.r.o"), 0.7),
        chords=StyleLayer((81, 90, 62), ("x..x..x.", "x..x..x.", "x..x.x.."), 0.6),
        figure=StyleLayer((80, 84, 87), ("03130313", "30323032"), 0.5),
        drums=((36, "X.X.X.X."), (39, "..X...X."), (46, ".X.X.X.X")),
    ),
    "reggae": Style(
        beats=4,
        swing=0.5,
        voicing="close",
        bass=StyleLayer((33, 37), ("r..rr.5.", "r..5r..r"), 1.3),
        chords=StyleLayer((16, 27, 28), (".x.x.x.x",), 0.5),
        figure=None,
        drums=((36, "....X..."), (37, "....X..."), (42, "xXxXxXxX")),
    ),
}

FAST_DRUMS: tuple[tuple[tuple[int, str], ...], ...] = (
    # Bass drum and snare by turns; twice as fast; sixteenths of the bass drum; half
    # time; three strokes of the bass drum for each beat.
    ((36, "X...X...X...X..."), (38, "..X...X...X...X."), (42, "x.x.x.x.x.x.x.x.")),
    ((36, "X.X.X.X.X.X.X.X."), (38, ".X.X.X.X.X.X.X.X"), (51, "X.X.X.X.X.X.X.X.")),
    ((36, "XxXxXxXxXxXxXxXx"), (38, "....X.......X..."), (51, "X...X...X...X...")),
    ((36, "XX..XX..X.XX.X.."), (38, "........X......."), (49, "X.......X.......")),
    ((36, "X.xxX.xxX.xxX.xx"), (38, "....X.......X..."), (42, "x.x.x.x.x.x.x.x.")),
)
"""How metal is drummed, in sixteenths of a bar of four beats: the beat is not the most
frequent stroke."""
