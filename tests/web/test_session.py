"""What happens when people use the page, without the page. The model is a fake."""

import socket

import numpy as np
import pytest
import soundfile
from helpers.fake_model import FakeModel

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.web import cards, export, password, uploads, waveform
from musilingo_jax.web.limits import Limits
from musilingo_jax.web.people import People
from musilingo_jax.web.session import Session, Settings

LIMITS = Limits(song_bytes=1 << 20, song_seconds=20.0, songs=2, letters=50, people=2)
SETTINGS = Settings(temperature=0.0, top_p=1.0, max_new_tokens=100, seed=0)


def song(folder, name="a.wav", seconds=1.0, loud=slice(None)):
    """A file with noise, which is silent outside of `loud`."""
    wave = np.zeros(round(8000 * seconds))
    wave[loud] = np.random.default_rng(0).uniform(-0.5, 0.5, len(wave))[loud]
    soundfile.write(folder / name, wave, 8000)
    return folder / name


def last(turns):
    *_, turn = turns
    return turn


@pytest.fixture
def session(tmp_path):
    session = Session(FakeModel(), LIMITS, "fake")
    session.add(song(tmp_path), "a.wav")
    return session


def test_an_answer_appears_while_it_is_written(session):
    seen = [(t.answer, t.state) for t in session.ask(" How long is it? ", SETTINGS)]
    assert seen == [
        ("", "writing"),
        ("It ", "writing"),
        ("It lasts ", "writing"),
        ("It lasts 1 ", "writing"),
        ("It lasts 1 s.", "writing"),
        ("It lasts 1 s.", "done"),
    ]
    assert [turn.question for turn in session.turns] == ["How long is it?"]


def test_earlier_turns_and_settings_reach_the_model(session):
    last(session.ask("One?", SETTINGS))
    last(session.ask("Two?", Settings(0.5, 0.9, 20, 7)))
    name, question, earlier, decoding = session._model.asked[-1]
    assert (name, question) == ("a.wav", "Two?")
    assert earlier == (("One?", "It lasts 1 s."),)
    assert decoding == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_new_tokens": 20,
        "seed": 7,
    }


def test_two_songs_are_compared(session, tmp_path):
    session.add(song(tmp_path, "b.wav", 2.0), "b.wav")
    turn = last(session.ask("Describe both songs.", SETTINGS))
    assert turn.answer == "a.wav: It lasts 1 s.\nb.wav: It lasts 2 s."
    assert "one song at a time" in session.notes[0]
    assert session.suggestions[0] == "Which song is faster?"
    turn = last(session.ask("Which song is faster?", SETTINGS))
    # Both answers state a length, and neither a tempo: nothing follows from them.
    assert turn.answer == "a.wav: It lasts 1 s.\nb.wav: It lasts 2 s."
    assert "cannot compare: each was asked 'What is the tempo?'" in session.notes[0]
    assert last(session.ask("And the first?", SETTINGS)).answer == "It lasts 1 s."


def test_try_again_draws_another_answer_in_its_place(session):
    last(session.ask("One?", SETTINGS))
    last(session.retry(SETTINGS))
    assert [turn.question for turn in session.turns] == ["One?"]
    *_, earlier, decoding = session._model.asked[-1]
    assert earlier == () and decoding["temperature"] > 0 and decoding["seed"] == 1


def test_stop_keeps_what_is_there(tmp_path):
    session = Session(FakeModel(seconds=0.05), LIMITS, "fake")
    session.add(song(tmp_path), "a.wav")
    turns = session.ask("One?", SETTINGS)
    for _ in range(3):
        next(turns)
    session.stop()
    turn = last(turns)
    assert (turn.answer, turn.state) == ("It lasts ", "stopped")
    assert last(session.ask("Two?", SETTINGS)).state == "done"


def test_a_long_answer_is_said_to_be_cut(session):
    turn = last(session.ask("One?", Settings(0, 1, 2, 0)))
    assert (turn.answer, turn.state) == ("It lasts ", "cut")


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("  ", "type a question first"),
        ("why " * 20, "has 79 letters, and at most 50"),
    ],
)
def test_questions_are_refused_in_a_sentence(session, question, says):
    with pytest.raises(UserError, match=says):
        last(session.ask(question, SETTINGS))
    assert session.turns == []
    assert last(session.ask("One?", SETTINGS)).state == "done"


def test_songs_are_refused_in_a_sentence_with_their_names(session, tmp_path):
    path = tmp_path / "upload"
    for content, says in (
        (b"A text that was renamed.\n" * 9, "^b.mp3: cannot be decoded: it is text$"),
        (b"\x93NUMPY\x01\x00", "^b.mp3: is an array of numbers, not a song$"),
        (b"", r"^b.mp3: the file is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=says):
            session.add(path, "b.mp3")
    with pytest.raises(UserError, match="^b.wav: lasts longer than the 0.333"):
        session.add(song(tmp_path, "b.wav", 21.0), "b.wav")
    session.add(song(tmp_path, "b.wav"), "b.wav")
    with pytest.raises(UserError, match="at most 2 songs"):
        session.add(song(tmp_path, "c.wav"), "c.wav")
    assert [known.name for known in session.songs] == ["a.wav", "b.wav"]


def test_what_sliders_may_send_is_checked():
    assert Settings.of(0, 1, 20.0, None) == Settings(0.0, 1.0, 20, 0)
    for sent in ((None, 1, 20, 0), (0, "x", 20, 0), (0, 1, float("inf"), 0)):
        with pytest.raises(UserError, match="a setting is not a number"):
            Settings.of(*sent)


def test_a_port_that_is_taken_is_one_sentence():
    site = pytest.importorskip("musilingo_jax.web.site", reason="needs gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port} cannot be listened at"):
            site.free_port("127.0.0.1", port)
    with pytest.raises(UserError, match="is no address"):
        site.free_port("a" * 300, 0)
    assert site.free_port("127.0.0.1", 0) > 0


def test_without_a_song_or_a_turn_there_is_nothing_to_do():
    session = Session(FakeModel(), LIMITS, "fake")
    with pytest.raises(UserError, match="add a song first"):
        last(session.ask("One?", SETTINGS))
    with pytest.raises(UserError, match="no answer to try again"):
        last(session.retry(SETTINGS))
    with pytest.raises(UserError, match="nothing to export"):
        export.text(session)


def test_a_person_does_one_thing_at_a_time(tmp_path):
    session = Session(FakeModel(seconds=0.05), LIMITS, "fake")
    session.add(song(tmp_path), "a.wav")
    turns = session.ask("One?", SETTINGS)
    next(turns)
    with pytest.raises(UserError, match="one thing at a time"):
        last(session.ask("Two?", SETTINGS))
    with pytest.raises(UserError, match="one thing at a time"):
        session.add(song(tmp_path, "b.wav"), "b.wav")
    assert last(turns).state == "done"


def test_people_do_not_wait_for_each_other(tmp_path):
    model = FakeModel()
    sessions = [Session(model, LIMITS, "fake") for _ in range(4)]
    for session in sessions:
        session.add(song(tmp_path), "a.wav")
    turns = [session.ask("One?", SETTINGS) for session in sessions]
    for _ in range(3):
        found = [next(turn).answer for turn in turns]
    assert found == ["It lasts "] * 4


def test_songs_are_removed_when_people_clear_leave_or_are_forgotten(tmp_path):
    people = People(
        lambda: Session(FakeModel(), LIMITS, "fake"), most=2, folder=tmp_path
    )

    def upload(tab):
        own = tmp_path / f"upload-{tab}"
        own.mkdir()
        people.session(tab).add(song(own), "a.wav")
        return own

    one, two = upload("1"), upload("2")
    people.clear("1")
    assert not one.exists() and people.session("1").songs == []
    people.leave("2")
    assert not two.exists() and len(people) == 1
    three = upload("3")
    people.session("1")
    people.session("4")
    assert not three.exists() and len(people) == 2
    people.leave("nobody")


def test_no_file_outside_of_the_folder_is_heard(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "song").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (inside / "link").symlink_to(tmp_path / "secret")
    assert uploads.checked(inside / "song", inside) == inside / "song"
    for path in ("/etc/passwd", inside / "../secret", inside / "link", inside, "song"):
        with pytest.raises(UserError, match="not a file which was uploaded here"):
            uploads.checked(path, inside)


def test_the_folder_is_private_and_gone_at_the_end(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with uploads.folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "song").write_bytes(b"x")
    assert not folder.exists()


def test_a_picture_shows_loudness_and_what_was_heard(tmp_path):
    path = song(tmp_path, seconds=4.0, loud=slice(0, 8000))
    bars = waveform.loudness(path, 20.0)
    quarter = waveform.BARS // 4
    assert len(bars) == waveform.BARS and bars.max() == 1
    assert bars[: quarter - 5].min() > 0.5 and bars[quarter + 5 :].max() < 0.05
    svg = waveform.picture(bars, ((0.0, 1.0), (3.0, 4.0)), 4.0)
    assert svg.count("<rect") == waveform.BARS
    assert svg.count("wave-heard") == waveform.BARS // 2
    assert "heard: 00:00–00:01, 00:03–00:04 of 00:04" in svg


def test_a_card_escapes_what_people_name_their_songs(tmp_path):
    session = Session(FakeModel(windows=0.2), LIMITS, "fake")
    added = session.add(song(tmp_path), "<b>x</b>\n\x1b[31m.wav")
    html = cards.songs(session.songs)
    assert "<b>" not in html and "&lt;b&gt;x" in html and "\x1b" not in html
    assert "Heard: 00:00–00:00, 00:01–00:01" in html
    assert added.heard == ((0.0, 0.2), (0.8, 1.0))
    assert "No song yet" in cards.songs([])
    assert 'role="alert"' in cards.status("no", wrong=True)
    assert "fake" in cards.header("fake", 30, 100, 600.0)


def test_a_conversation_is_exported(session, tmp_path):
    last(session.ask("One?", SETTINGS))
    path = export.write(session, tmp_path)
    assert path.suffix == ".md" and path.parent.parent == tmp_path
    text = path.read_text()
    assert "1. a.wav (00:01; heard: 00:00–00:01)" in text
    assert "**One?**\n\nIt lasts 1 s.\n" in text


def test_a_password_is_read_and_compared(tmp_path, monkeypatch):
    monkeypatch.delenv(password.VARIABLE, raising=False)
    assert password.load(None) is None
    (tmp_path / "file").write_text("correct horse\n")
    assert password.load(str(tmp_path / "file")) == "correct horse"
    # As an editor on Windows writes it, and as keyboards on Macs spell it.
    (tmp_path / "file").write_bytes("\ufeffcafe\u0301 🎵 horse\r\n".encode())
    odd = password.load(str(tmp_path / "file"))
    assert odd == "café 🎵 horse"
    assert password.matches(odd, "cafe\u0301 🎵 horse ")
    assert not password.matches(odd, "cafe \ud800 horse")
    monkeypatch.setenv(password.VARIABLE, "short")
    with pytest.raises(UserError, match="at least 8 characters"):
        password.load(None)
    with pytest.raises(UserError, match="longer than 4096 letters"):
        password.load("/dev/zero")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        password.load(str(tmp_path / "nowhere"))
    assert password.matches("pässword", "pässword")
    assert not password.matches("pässword", "password")
