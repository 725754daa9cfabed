"""The page: Gradio's components, and what happens when people use them.

All people's questions go to one model, which answers them in one batch: Gradio starts
as many answers at once as it is asked for.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]  # An extra.

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.web import cards, export, uploads
from musilingo_jax.web.people import People
from musilingo_jax.web.session import SUGGESTIONS, Session, Settings, Turn

TITLE = "Ask about music"
_WRITING = "Writing …"
_HINT = "Ask in your own words, or choose a question."


def messages(session: Session) -> list[dict[str, str]]:
    """A conversation in the form of Gradio's chat."""
    found = []
    for turn in session.turns:
        found += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": shown(turn)},
        ]
    return found


def shown(turn: Turn) -> str:
    """An answer, with how it ended if it did not come to its end."""
    marks = {"writing": " …", "cut": " … (cut: it has as many tokens as may be)"}
    return turn.answer + (marks | {"stopped": " … (stopped)"}).get(turn.state, "")


def build(people: People, *, head: str, usual: Settings, most_tokens: int) -> gr.Blocks:
    """The page.

    Args:
      people: who use it.
      head: HTML with the model's name and limits.
      usual: settings at first.
      most_tokens: that a person may ask for.
    """
    # Gradio would otherwise tell its makers that the page was opened.
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(head, elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                song = gr.Audio(
                    label="Add a song",
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,
                    buttons=[],
                    elem_id="song",
                )
                heard = gr.HTML(cards.status(""), elem_id="heard")
                songs = gr.HTML(cards.songs([]), elem_id="songs")
            with gr.Column(scale=6, min_width=300):
                chat = gr.Chatbot(
                    label="Conversation",
                    height="min(52vh, 450px)",
                    render_markdown=False,
                    feedback_options=None,
                    buttons=[],
                    placeholder="Add a song, then ask about it.",
                    elem_id="chat",
                )
                with gr.Row(elem_classes="suggestions"):
                    suggestions = [gr.Button(text, size="sm") for text in SUGGESTIONS]
                with gr.Row(elem_classes="asking"):
                    question = gr.Textbox(
                        label="Question",
                        placeholder="What would you like to know?",
                        lines=1,
                        max_lines=4,
                        scale=8,
                        elem_id="question",
                    )
                    ask = gr.Button("Ask", variant="primary", scale=1, min_width=90)
                    stop = gr.Button(
                        "Stop", variant="stop", scale=1, min_width=90, visible=False
                    )
                status = gr.HTML(cards.status(_HINT), elem_id="status")
                with gr.Row(elem_classes="actions"):
                    retry = gr.Button("Try again", size="sm")
                    clear = gr.Button("Clear", size="sm")
                    save = gr.DownloadButton("Export", size="sm")
                with gr.Accordion("Settings", open=False):
                    temperature = gr.Slider(
                        0, 2, usual.temperature, step=0.05, label="Temperature",
                        info="0 takes the likeliest words; more draws others",
                    )  # fmt: skip
                    top_p = gr.Slider(
                        0.05, 1, usual.top_p, step=0.05, label="Top p",
                        info="draws among the likeliest words only; 1 for all",
                    )  # fmt: skip
                    most = gr.Slider(
                        8, most_tokens, usual.max_new_tokens, step=1, label="Tokens",
                        info="of an answer at most",
                    )  # fmt: skip
                    seed = gr.Number(
                        usual.seed, precision=0, label="Seed",
                        info="the same seed draws the same words",
                    )  # fmt: skip

        settings = [temperature, top_p, most, seed]
        answering = [chat, question, status, ask, stop]
        free = {"queue": True, "concurrency_limit": None, "api_visibility": "private"}
        quiet = {**free, "show_progress": "hidden"}

        added = [song, songs, heard, *suggestions]
        for event, name in ((song.upload, None), (song.stop_recording, "recording")):
            event(_add(people, name), [song], added, show_progress="minimal", **free)
        gr.on(
            [ask.click, question.submit],
            _ask(people),
            [question, *settings],
            answering,
            **quiet,
        )
        for suggestion in suggestions:
            suggestion.click(_ask(people), [suggestion, *settings], answering, **quiet)
        retry.click(_retry(people), [question, *settings], answering, **quiet)
        stop.click(_stop(people), None, None, **quiet)
        cleared = [song, songs, heard, chat, status, *suggestions]
        clear.click(_clear(people), None, cleared, **quiet)
        save.click(_save(people), None, [save, status], **quiet)
        page.unload(_leave(people))
    return page


def _session(people: People, request: gr.Request) -> Session:
    return people.session(request.session_hash or "")


def _named(session: Session) -> list[Any]:
    """The suggestions that fit the number of songs."""
    return [gr.update(value=text) for text in session.suggestions]


def _add(people: People, name: str | None) -> Callable[..., Any]:
    """Adds a song, by the name of its file or another one."""

    def add(path: str | None, request: gr.Request) -> list[Any]:
        session = _session(people, request)
        said = ""
        try:
            if path is None:
                raise UserError("there is no song in that")
            real = uploads.checked(path, people.folder)
            try:
                called = name and f"{name} {len(session.songs) + 1}"
                added = session.add(real, called or real.name)
            except UserError:
                uploads.remove(real, people.folder)
                raise
            said = cards.status(f"{added.name} was heard: ask about it.")
        except UserError as error:
            said = cards.status(f"{error}.", wrong=True)
        return [None, cards.songs(session.songs), said, *_named(session)]

    return add


def _answer(
    people: People,
    turns: Callable[[Session, str, Settings], Iterator[Turn]],
    **box: Any,
) -> Callable[..., Any]:
    """Shows the conversation whenever there is more of an answer.

    Args:
      people: who use the page.
      turns: asks; its turns are those of `Session.ask`.
      **box: how the box for the question is updated when the question is taken.
    """
    busy = [gr.update(visible=False), gr.update(visible=True)]
    free = [gr.update(visible=True), gr.update(visible=False)]

    def answer(
        question: str,
        temperature: float,
        top_p: float,
        most: int,
        seed: int | None,
        request: gr.Request,
    ) -> Iterator[Any]:
        session = _session(people, request)
        try:
            settings = Settings.of(temperature, top_p, most, seed)
            for _ in turns(session, question, settings):
                writing = cards.status(_WRITING)
                yield [messages(session), gr.update(**box), writing, *busy]
            said = " ".join(f"Note: {note}." for note in session.notes) or _HINT
            yield [messages(session), gr.skip(), cards.status(said), *free]
        except UserError as error:
            said = cards.status(f"{error}.", wrong=True)
            yield [messages(session), gr.skip(), said, *free]

    return answer


def _ask(people: People) -> Callable[..., Any]:
    return _answer(people, Session.ask, value="")


def _retry(people: People) -> Callable[..., Any]:
    return _answer(people, lambda session, _, settings: session.retry(settings))


def _stop(people: People) -> Callable[..., Any]:
    # Shows nothing itself: the answer that ends does, and may do so before.
    def stop(request: gr.Request) -> None:
        _session(people, request).stop()

    return stop


def _clear(people: People) -> Callable[..., Any]:
    def clear(request: gr.Request) -> list[Any]:
        people.clear(request.session_hash or "")
        session = _session(people, request)
        said = cards.status("Cleared: songs and answers are gone.")
        empty = cards.status("")
        return [None, cards.songs([]), empty, [], said, *_named(session)]

    return clear


def _save(people: People) -> Callable[..., Any]:
    def save(request: gr.Request) -> list[Any]:
        try:
            path = export.write(_session(people, request), people.folder)
        except UserError as error:
            return [None, cards.status(f"{error}.", wrong=True)]
        return [str(path), cards.status(f"{path.name} is ready: press Export again.")]

    return save


def _leave(people: People) -> Callable[..., Any]:
    def leave(request: gr.Request) -> None:
        people.leave(request.session_hash or "")

    return leave
