"""A conversation goes on with what a row has read of it; its answers stay the same."""

import dataclasses
import random
import threading

import numpy as np
import pytest
from helpers import tiny_model as tiny

from musilingo_jax.answering import row_batch
from musilingo_jax.answering.answer import prompt_tokens, seed_of, stop_texts_of
from musilingo_jax.answering.live_batch import LiveBatch
from musilingo_jax.answering.padded_prompts import PromptTokens
from musilingo_jax.answering.prompt_queue import QueuedPrompt
from musilingo_jax.answering.row_texts import Beginning, RowTexts

GREEDY = tiny.GREEDY
DRAWN = dataclasses.replace(GREEDY, temperature=1.0, top_p=0.9, seed=7)


def queued(tokens, audio=1, *, features=0.0, continues=True) -> QueuedPrompt:
    """A prompt of a start token, `audio` vectors, and then `tokens`."""
    prompt = PromptTokens(
        np.full((audio, 4), features, np.float32),
        (1, *[0] * audio, *tokens),
        (-1, *range(audio), *[-1] * len(tokens)),
    )
    return QueuedPrompt(0, prompt, 0, continues=continues)


def test_the_longest_beginning_is_found():
    texts = RowTexts()
    texts.begin(0, queued((5, 6)))
    texts.extend(0, (7, 8, 9))  # The cache lacks the last one.
    texts.begin(1, queued((5, 6, 9)))
    assert texts.beginning(queued((5, 6, 7, 8, 4))) == Beginning(0, 6)
    assert texts.beginning(queued((5, 6, 7, 3, 4))) == Beginning(0, 5)
    assert texts.beginning(queued((5, 6, 9, 3))) == Beginning(1, 5)
    # The last token of a prompt is always read.
    assert texts.beginning(queued((5, 6, 7, 8))) == Beginning(0, 5)
    assert texts.beginning(queued((4, 6, 7, 8))) is None


def test_a_beginning_has_the_same_song_and_is_of_a_conversation():
    texts = RowTexts()
    texts.begin(0, queued((5, 6), audio=2))
    follows = (5, 6, 7, 8)
    assert texts.beginning(queued(follows, audio=2)) == Beginning(0, 5)
    assert texts.beginning(queued(follows, audio=2, features=1.0)) is None
    assert texts.beginning(queued((0, *follows), audio=1)) is None
    assert texts.beginning(queued(follows, audio=2, continues=False)) is None


def test_rows_are_given_away_in_the_order_in_which_they_were_begun():
    texts = RowTexts()
    for row in (2, 0, 1, 2):
        texts.begin(row, queued((5,)))
    assert texts.longest_silent([1, 2, 3, 0]) == [3, 0, 1, 2]


class Talk:
    """A conversation of a client that sends all earlier turns with each question."""

    def __init__(self, batch, features, *, config=GREEDY, model=None):
        self.batch, self.features, self.config = batch, features, config
        self.model = model or tiny.answerer()
        self.turns: list[tuple[str, str]] = []

    def submit(self, question, *, whole=None):
        """Asks; a batch as `whole` reads all of the prompt."""
        asked = self.features, question, self.turns
        self.prompt = prompt_tokens(self.model, tiny.PROMPT, *asked)
        return (whole or self.batch).submit(
            self.prompt,
            decoding=self.config,
            stop_texts=stop_texts_of(tiny.PROMPT, self.config),
            seed=seed_of(self.config, *asked),
            continues=bool(self.turns) and whole is None,
        )

    def ask(self, question):
        """Adds a turn; returns how many tokens of its prompt were not read anew.

        The answer is the one to the same prompt if all of it is read.
        """
        pending = self.submit(question)
        text = pending.answer(timeout=600).text
        other = live(self.model)
        assert text == self.submit(question, whole=other).answer(timeout=600).text
        other.close()
        self.turns.append((question, text))
        return pending.cached_tokens


def live(model=None) -> LiveBatch:
    return LiveBatch(
        model or tiny.answerer(),
        rows=3,
        windows=4,
        slots=384,
        max_new_tokens=12,
        queue=64,
    )


def songs(count):
    return [features for features, _ in tiny.requests(count)]


@pytest.mark.medium
def test_only_what_is_new_is_read(monkeypatch):
    """The letters of this model's answers are a token each, as in its prompts."""
    script = [tiny.token(piece) for piece in ("a", "b", "c", "###")]
    model = tiny.parrot_answerer(script)
    batch, read = live(model), []

    def counted(reader, rule, rows, bank, admission):
        if int(admission.held.lengths[0]):
            read.append(int(admission.prompts.lengths[0]))
        return admit(reader, rule, rows, bank, admission)

    admit = row_batch.admit
    monkeypatch.setattr(row_batch, "admit", counted)
    talk = Talk(batch, songs(1)[0], model=model)
    assert talk.ask("How?") == 0
    for question in ("Why?", "Is it so?", "And?"):
        before = len(talk.prompt.tokens)
        cached = talk.ask(question)
        # The prompt before, "abc" and "###", with which the next turn begins.
        assert cached == before + len(script) - 1
        assert read[-1] == len(talk.prompt.tokens) - cached
    assert [answer for _, answer in talk.turns] == ["abc"] * 4
    batch.close()


@pytest.mark.medium
@pytest.mark.parametrize("config", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_answers_are_those_without_what_rows_hold(config):
    batch, talk = live(), None
    for features in songs(2):
        talk = Talk(batch, features, config=config)
        found = [talk.ask(q) for q in ("How?", "Why is it?", "Loud?", "How?")]
        assert found[0] == 0 and 0 < found[1] < found[2] < found[3]
        assert len({answer for _, answer in talk.turns}) > 2
    batch.close()


@pytest.mark.medium
def test_conversations_take_turns():
    """As many as there are rows; one more, and the oldest is read again."""
    batch = live()
    talks = [Talk(batch, features) for features in songs(3)]
    for question in ("How?", "Why is it?", "Loud?"):
        cached = [talk.ask(question) for talk in talks]
    assert min(cached) > 40
    other = Talk(batch, 1 + songs(1)[0])
    other.ask("How?")
    first, second, third = (talk.ask("And?") for talk in talks)
    audio = QueuedPrompt(0, talks[0].prompt, 0).prefix_length
    assert first <= audio  # Its row was given away, and then took that of the second.
    assert second <= audio and third <= audio
    assert [talk.ask("So?") for talk in talks[1:]] > [40, 40]
    batch.close()


@pytest.mark.medium
def test_another_answer_to_the_same_question_reads_a_token():
    batch = live()
    talk = Talk(batch, songs(1)[0])
    talk.ask("How?")
    talk.ask("Why?")
    del talk.turns[-1]
    talk.config = DRAWN
    assert talk.ask("Why?") == len(talk.prompt.tokens) - 1
    batch.close()


@pytest.mark.medium
def test_a_stopped_answer_is_gone_on_with():
    batch = live()
    talk = Talk(batch, songs(1)[0])
    talk.config = dataclasses.replace(GREEDY, min_new_tokens=11)
    talk.ask("How?")
    pending = talk.submit("Why?")
    pieces = pending.pieces()
    said = next(pieces)
    pieces.close()
    before = len(talk.prompt.tokens)
    talk.turns.append(("Why?", said))
    assert talk.ask("So?") >= before
    batch.close()


@pytest.mark.medium
def test_many_conversations_at_once_with_fewer_rows():
    batch, failed = live(), []

    def client(number):
        wait = random.Random(number)
        talk = Talk(batch, songs(4)[number % 4], config=(GREEDY, DRAWN)[number % 2])
        try:
            for turn in range(4):
                if wait.random() < 0.3:
                    next(talk.submit(f"Eh? {number}").pieces(), "")
                talk.ask(f"How {number % 3}? {turn}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch.close(None)
    assert not failed
