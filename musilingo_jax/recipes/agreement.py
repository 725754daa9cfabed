"""How far a student agrees with its teachers on songs of packages that it never heard.

Agreement is not truth: a student that takes every flute for a violin, as its teacher
does, agrees with it. It is measured on whole songs, the mean over their excerpts, and
beside it stands the same student asked about another song:

    correlation     over songs, of the student's logit of a tag with the teacher's
    shuffled        the same, each song beside the next package's
"""

import numpy as np
from jaxtyping import Float

from musilingo_jax.models.taggers.musicnn import TAGS
from musilingo_jax.recipes import encoder
from musilingo_jax.recipes.encoder import EncoderRecipe
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.lessons import SOUNDS, Lessons, sound_of
from musilingo_jax.recipes.student import Student

_BATCH = 16


def agreement(
    student: Student,
    recorded: RecordedSet,
    lessons: Lessons,
    recipe: EncoderRecipe,
) -> dict[str, dict[str, float]]:
    """The correlation of each tag with the teachers', by tagger, and their means.

    Args:
      student: what was taught.
      recorded: excerpts of songs of packages that it was not taught with.
      lessons: what the teachers heard in them.
      recipe: of its training.

    Returns:
      Tagger → tag → correlation, with `mean` and `shuffled`, the mean correlation with
      other songs.
    """
    music = [sound_of(package) == SOUNDS[0] for package in recorded.packages]
    said = hear(student, recorded, recipe)[music]
    songs = [str(path) for path in recorded.paths]
    songs = [song for song, is_music in zip(songs, music, strict=True) if is_music]
    ours, theirs = by_song(said, songs), by_song(lessons.outputs[music], songs)
    turned = np.roll(theirs, len(theirs) // 2, axis=0)
    found, column = {}, 0
    for name, tags in TAGS.items():
        columns = slice(column, column + len(tags))
        each = correlations(ours[:, columns], theirs[:, columns])
        others = correlations(ours[:, columns], turned[:, columns])
        found[name] = dict(zip(tags, map(float, each), strict=True))
        found[name] |= {"mean": float(each.mean()), "shuffled": float(others.mean())}
        column += len(tags)
    return found


def hear(
    student: Student, recorded: RecordedSet, recipe: EncoderRecipe
) -> Float[np.ndarray, "excerpts outputs"]:
    """What the student says in place of the taggers about each excerpt."""
    said = []
    for begin in range(0, len(recorded), _BATCH):
        rows = np.arange(begin, begin + _BATCH).clip(max=len(recorded) - 1)
        heard = encoder.heard(student, recorded.heard(rows), recipe.window_frames)
        said.append(np.asarray(heard))
    return np.concatenate(said)[: len(recorded)]


def by_song(
    rows: Float[np.ndarray, "excerpts columns"], songs: list[str]
) -> Float[np.ndarray, "songs columns"]:
    """The mean over the excerpts of each song, in the order of the songs."""
    _, place = np.unique(songs, return_inverse=True)
    sums = np.zeros((place.max() + 1, rows.shape[1]))
    np.add.at(sums, place, rows)
    return sums / np.bincount(place)[:, None]


def correlations(
    ours: Float[np.ndarray, "songs columns"], theirs: Float[np.ndarray, "songs columns"]
) -> Float[np.ndarray, " columns"]:
    """Pearson's correlation of each column; 0 where one of the two is constant."""
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    spread = np.sqrt(np.square(ours).sum(axis=0) * np.square(theirs).sum(axis=0))
    return (ours * theirs).sum(axis=0) / np.maximum(spread, 1e-12)
