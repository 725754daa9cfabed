"""Your own songs as a TFDS dataset, like the published corpora."""

from collections.abc import Iterator

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.unicode_names import as_on_disk


class OwnSongs(Corpus):
    """The rows of a songs.jsonl or songs.csv, with counts, hours and what is missing.

    Training and evaluation read such a file as it is. To build it lists all that is
    wrong with it at once, and what is built can be read on a machine without the songs.
    The lines are described in `songs.load`.
    """

    name = "own_songs"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = songs.resolve(str(self.source))
        if path.is_dir():
            raise UserError(
                f"{path}: is a folder of songs without answers, so nothing can be "
                f"built; write a {songs.FILE_NAME}, or caption the songs with "
                "musilingo_jax.generate"
            )
        folder = self.audio or path.parent.absolute()
        listings: dict[str, dict[str, list[str]]] = {}
        for where, fields in songs.rows(path):
            yield SurveyRow(
                where=where,
                sound=Wanted(
                    names=(fields["audio"],),
                    start=fields["start"],
                    end=fields["end"],
                    rate=fields["rate"],
                    exact=as_on_disk(folder / fields["audio"], listings),
                ),
                question=fields["question"],
                answer=fields["answer"],
                split=fields["split"],
                attribute=fields["attribute"],
                value=fields["value"],
            )
