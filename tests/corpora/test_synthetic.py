"""Composed pieces: independent attributes, targets that match the notes, seeds."""

from collections import Counter

import numpy as np
import pytest

from musilingo_jax.corpora.styles import DRUM_KEYS, FAMILIES, LEADS, SCALES, STYLES
from musilingo_jax.corpora.synthetic import (
    ATTRIBUTES,
    BASS,
    DRUMS,
    LEAD,
    LEAD_IN,
    compose,
    frame_targets,
)

RATE, FRAMES = 75.0, 450


@pytest.fixture(scope="module")
def pieces():
    return [compose(np.random.default_rng([3, n]), duration=6.0) for n in range(500)]


def test_a_piece_is_a_function_of_its_seed(pieces):
    again = compose(np.random.default_rng([3, 0]), duration=6.0)
    assert again.labels() == pieces[0].labels()
    np.testing.assert_array_equal(again.notes, pieces[0].notes)
    assert len({piece.bpm for piece in pieces}) == len(pieces)


def test_labels_are_uniform_and_independent(pieces):
    labels = [piece.labels() for piece in pieces]
    for name, values in ATTRIBUTES.items():
        counts = Counter(label[name] for label in labels)
        assert set(counts) == set(values)
        assert max(counts.values()) < 1.3 * len(pieces) / len(values) + 15
    free = [name for name in ATTRIBUTES if name != "key"]  # the key contains the mode
    for first in free:
        for second in free:
            if first < second:
                assert _information(labels, first, second) < 0.05


def _information(labels, first, second):
    """Mutual information of two attributes, in nats."""
    joint = Counter((label[first], label[second]) for label in labels)
    one, two = (Counter(label[name] for label in labels) for name in (first, second))
    total = len(labels)
    return sum(
        count / total * np.log(count * total / (one[a] * two[b]))
        for (a, b), count in joint.items()
    )


def test_every_family_and_style_is_described():
    assert tuple(LEADS) == tuple(FAMILIES) == ATTRIBUTES["lead"]
    assert tuple(STYLES) == ATTRIBUTES["style"]
    for name, (programs, (low, high)) in LEADS.items():
        assert set(programs) <= set(FAMILIES[name]) and high - low >= 15
    for style in STYLES.values():
        bars = [*style.bass.bars, *style.chords.bars, *(bar for _, bar in style.drums)]
        bars += style.figure.bars if style.figure else ()
        assert {len(bar) for bar in bars} == {2 * style.beats}
        assert {key for key, _ in style.drums} <= set(sum(DRUM_KEYS.values(), ()))


def test_notes_keep_to_the_clip_the_key_and_the_label(pieces):
    for piece in pieces:
        notes = piece.notes
        assert np.all(np.diff(notes["start"]) >= 0)
        assert np.all(notes["start"] >= -LEAD_IN)
        assert np.all((notes["start"] < notes["end"]) & (notes["end"] <= 6.0))
        assert np.all((notes["velocity"] >= 1) & (notes["velocity"] <= 127))
        assert piece.drums == bool(np.any(notes["channel"] == DRUMS))
        pitched = notes[notes["channel"] != DRUMS]
        assert set(pitched["channel"]) <= set(piece.programs)
        degrees = set((pitched["pitch"] - piece.tonic) % 12)
        ninth = {2}
        assert degrees <= set(SCALES[piece.mode]) | ninth
        assert piece.programs[LEAD] in FAMILIES[piece.lead]
        assert max(piece.levels, key=piece.levels.get) == LEAD


def test_beats_are_those_of_the_tempo(pieces):
    for piece in pieces:
        np.testing.assert_allclose(np.diff(piece.beats), 60 / piece.bpm)
        beats_per_bar = 3 if piece.style == "waltz" else 4
        apart = 60 / piece.bpm * beats_per_bar
        np.testing.assert_allclose(np.diff(piece.downbeats), apart)
        assert STYLES[piece.style].beats == beats_per_bar
        assert len(piece.downbeats) >= 1


def test_the_tonic_is_the_commonest_bass_over_many_pieces(pieces):
    for mode in SCALES:
        heard = Counter()
        for piece in pieces:
            bass = piece.notes[piece.notes["channel"] == BASS]
            if piece.mode == mode:
                heard.update(((bass["pitch"] - piece.tonic) % 12).tolist())
        (first, most), (_, second) = heard.most_common(2)
        assert first == 0 and most > 1.2 * second


def test_frame_targets_have_their_shapes(pieces):
    targets = frame_targets(pieces[0], frames_per_second=RATE, frames=FRAMES)
    shapes = {name: target.shape for name, target in targets.items()}
    assert shapes == {
        "chroma": (FRAMES, 12),
        "bass": (FRAMES, 12),
        "melody": (FRAMES, 12),
        "families": (FRAMES, len(ATTRIBUTES["lead"])),
        "onset": (FRAMES, 1),
        "beat": (FRAMES, 1),
        "downbeat": (FRAMES, 1),
        "drums": (FRAMES, 3),
    }
    for target in targets.values():
        assert target.dtype == np.float32
        assert target.min() >= 0 and target.max() <= 1


def test_frame_targets_are_what_the_notes_say(pieces):
    """Counted slowly, frame by frame, for a few pieces."""
    for piece in pieces[:6]:
        targets = frame_targets(piece, frames_per_second=RATE, frames=FRAMES)
        for frame in range(0, FRAMES, 37):
            middle = (frame + 0.5) / RATE
            sounding = piece.notes[
                (np.round(piece.notes["start"] * RATE) <= frame)
                & (np.round(piece.notes["end"] * RATE) > frame)
                & (piece.notes["channel"] != DRUMS)
            ]
            heard = set(sounding["pitch"] % 12)
            assert heard == set(np.flatnonzero(targets["chroma"][frame]))
            lead = sounding[sounding["channel"] == LEAD]
            assert set(lead["pitch"] % 12) == set(
                np.flatnonzero(targets["melody"][frame])
            )
            if len(lead):
                family = ATTRIBUTES["lead"].index(piece.lead)
                assert targets["families"][frame, family] == 1
            nearest = np.min(np.abs(piece.beats - middle)) * RATE
            expected = max(1 - nearest, 0)
            assert targets["beat"][frame, 0] == pytest.approx(expected, abs=1e-5)


def test_moments_share_their_height_between_two_frames(pieces):
    piece = pieces[0]
    inside = piece.beats[(piece.beats > 0.1) & (piece.beats < 5.9)]
    targets = frame_targets(piece, frames_per_second=RATE, frames=FRAMES)
    beat = targets["beat"][:, 0]
    for time in inside:
        place = int(time * RATE - 0.5)
        assert beat[place : place + 2].sum() == pytest.approx(1, abs=1e-4)
    assert np.all(targets["downbeat"] <= targets["beat"])


def test_drum_targets_are_silent_without_drums(pieces):
    for piece in pieces[:60]:
        targets = frame_targets(piece, frames_per_second=RATE, frames=FRAMES)
        assert bool(targets["drums"].any()) == piece.drums
        assert targets["onset"].max() > 0.4
