"""`musilingo search`: a song of the cache, features from a file, words."""

import json

import numpy as np
import pytest
from helpers import small_cache

from musilingo_jax import search
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.corpora import songs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh

TEXTS = ["A calm piano.", "A loud piano and drums.", "A flute.", "Drums, drums."]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six songs of noise in a cache, four of them with a text."""
    folder = tmp_path_factory.mktemp("corpus")
    small_cache.write_songs(folder, 6)
    records = songs.load(folder / "songs.jsonl")
    clips = [Clip(record.clip, record.audio) for record in records]
    mert = small_cache.tiny_mert(make_mesh(data=1, fsdp=1, tensor=1))
    cache = small_cache.fill(clips, mert, folder / "cache")
    lines = [{"audio": f"{n:02}.wav", "answer": text} for n, text in enumerate(TEXTS)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "texts.jsonl").write_text(text)
    return folder, cache


def run(folder, *words):
    given = search.parser().parse_args([*words, f"--cache={folder / 'cache'}"])
    search.main(given)


def found(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_song_is_most_like_itself(corpus, capsys):
    folder, cache = corpus
    run(folder, f"--song={folder / '03.wav'}", "--json")
    rows = found(capsys)
    assert [row["clip"] for row in rows[:1]] == [list(cache.ids)[3]]
    assert rows[0]["score"] == pytest.approx(1) and len(rows) == 6
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= -1
    assert "text" not in rows[0]
    run(folder, f"--song={folder / '03.wav'}", "--top=2")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == f"  1.000  {cache.path(rows[0]['clip'])}"


def test_a_copy_elsewhere_and_its_features_are_the_same_song(corpus, tmp_path, capsys):
    folder, cache = corpus
    run(folder, f"--song={folder / '02.wav'}", "--json")
    expected = found(capsys)
    copy = tmp_path / "another name.wav"
    copy.write_bytes((folder / "02.wav").read_bytes())
    run(folder, f"--song={copy}", "--json")
    assert found(capsys) == expected
    np.save(tmp_path / "song.npy", cache.features(list(cache.ids)[2]))
    run(folder, f"--song={tmp_path / 'song.npy'}", "--json")
    assert found(capsys) == expected


def test_words(corpus, capsys):
    folder, cache = corpus
    run(folder, "drums", f"--texts={folder / 'texts.jsonl'}", "--json")
    rows = found(capsys)
    assert [row["text"] for row in rows] == [TEXTS[3], TEXTS[1]]
    assert [row["clip"] for row in rows] == [list(cache.ids)[n] for n in (3, 1)]
    run(folder, "drums", f"--texts={folder / 'texts.jsonl'}")
    done = capsys.readouterr()
    assert "note: 2 of 6 clips have no text, and 0 texts are of clips" in done.err
    assert done.out.splitlines()[0].endswith("03.wav  Drums, drums.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either words"),
        (["calm", "--song=x"], "give either words"),
        (["calm"], "words are looked for in texts: name the file"),
        (["--song=x", "--audio=x"], "--audio is for --texts"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(corpus, words, message):
    with pytest.raises(UsageError, match=message):
        run(corpus[0], *words)


def test_what_cannot_be_found_is_told(corpus, tmp_path):
    folder, _ = corpus
    texts = f"--texts={folder / 'texts.jsonl'}"
    with pytest.raises(UserError, match="none of its texts about 4 clips has any of"):
        run(folder, "tuba", texts)
    (tmp_path / "a.wav").write_bytes(b"no song of the cache")
    with pytest.raises(UserError, match="a.wav: is not in the cache"):
        run(folder, f"--song={tmp_path / 'a.wav'}")
    with pytest.raises(UserError, match="b.wav: cannot be read"):
        run(folder, f"--song={tmp_path / 'b.wav'}")
    np.save(tmp_path / "wide.npy", np.zeros((2, 7)))
    with pytest.raises(UserError, match=r"array of shape \[2, 7\], but the cache has"):
        run(folder, f"--song={tmp_path / 'wide.npy'}")
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(UserError, match="cannot be read as a NumPy array"):
        run(folder, f"--song={tmp_path / 'text.npy'}")
    other = tmp_path / "captions.jsonl"
    other.write_text('{"audio": "a.wav", "caption": "Calm."}\n')
    with pytest.raises(UserError, match="says nothing of any of the 6 clips"):
        run(folder, "calm", f"--texts={other}")


def test_a_cache_of_layers_is_refused(corpus, monkeypatch):
    folder, cache = corpus
    monkeypatch.setattr(type(cache), "reduction", "layers")
    with pytest.raises(UserError, match="a vector for each layer and not for each"):
        run(folder, f"--song={folder / '01.wav'}")
