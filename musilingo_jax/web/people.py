"""The people who use the page, each with a conversation of their own."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from musilingo_jax.web import uploads
from musilingo_jax.web.session import Session


class People:
    """Conversations by the number that a browser's tab has.

    Attributes:
      folder: of uploaded songs.
    """

    def __init__(self, begin: Callable[[], Session], *, most: int, folder: Path):
        """Nobody yet.

        Args:
          begin: makes a conversation.
          most: conversations that are kept; the one that was silent longest is
            forgotten first.
          folder: of uploaded songs.
        """
        self._begin, self._most, self.folder = begin, most, folder
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, tab: str) -> Session:
        """The conversation of a tab, which begins when it is first asked for."""
        with self._lock:
            session = self._sessions.get(tab) or self._begin()
            self._sessions[tab] = session
            self._sessions.move_to_end(tab)
            forgotten = [
                self._sessions.popitem(last=False)[1]
                for _ in range(len(self._sessions) - self._most)
            ]
        for session_left in forgotten:
            self._clear(session_left)
        return session

    def leave(self, tab: str) -> None:
        """Ends the conversation of a tab that was closed, and removes its songs."""
        with self._lock:
            session = self._sessions.pop(tab, None)
        if session is not None:
            self._clear(session)

    def clear(self, tab: str) -> None:
        """Begins a conversation anew."""
        self._clear(self.session(tab))

    def _clear(self, session: Session) -> None:
        for path in session.clear():
            uploads.remove(path, self.folder)
