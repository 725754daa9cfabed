"""Your own songs as a TFDS dataset, like the published corpora."""

from collections.abc import Iterator

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError


class OwnSongs(Corpus):
    """What a songs.jsonl or songs.csv says, with counts, hours and what is missing.

    Training and evaluation take such a file as it is; built, it tells of all that is
    wrong with it at once, and can be read where the songs are not. The lines are
    described in `songs.load`.
    """

    name = "own_songs"

    def rows(self) -> Iterator[SurveyRow]:
        path = songs.resolve(str(self.source))
        if path.is_dir():
            raise UserError(
                f"{path}: is a folder of songs without answers, from which nothing can "
                f"be built; write a {songs.FILE_NAME}, or caption it with "
                "musilingo_jax.generate"
            )
        folder = self.audio or path.parent.absolute()
        for where, fields in songs.rows(path):
            yield SurveyRow(
                where=where,
                sound=Wanted(
                    names=(fields["audio"],),
                    start=fields["start"],
                    end=fields["end"],
                    rate=fields["rate"],
                    exact=folder / fields["audio"],
                ),
                question=fields["question"],
                answer=fields["answer"],
                split=fields["split"],
                attribute=fields["attribute"],
                value=fields["value"],
            )
