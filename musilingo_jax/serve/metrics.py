"""What Prometheus reads at `/metrics`."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = CONTENT_TYPE_LATEST
# What is counted by its name; the names of other paths are the clients' and endless.
_PATHS = (
    "/healthz",
    "/metrics",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/embeddings",
)
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """Counts of one server.

    Attributes:
      requests: by path and status.
      answers: by how they ended.
      tokens: that were read (`prompt`) and written (`answer`).
      running: questions that wait or are being answered.
      first_piece: seconds from a request to the first piece of its answer.
      whole: seconds from a request to the end of its answer.
      hearing: seconds until all songs of a request were heard.
    """

    def __init__(self) -> None:
        # Else each count comes with the time of its first one.
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "musilingo_requests",
            "Requests, by path and status.",
            ["path", "status"],
            registry=self._registry,
        )
        self.answers = Counter(
            "musilingo_answers",
            "Answers, by how they ended.",
            ["finish"],
            registry=self._registry,
        )
        self.tokens = Counter(
            "musilingo_tokens",
            "Tokens that were read and written.",
            ["kind"],
            registry=self._registry,
        )
        self.running = Gauge(
            "musilingo_running",
            "Questions that wait or are being answered.",
            registry=self._registry,
        )
        self.first_piece = self._histogram("first_piece", "to the first piece")
        self.whole = self._histogram("answer", "to the end of an answer")
        self.hearing = self._histogram("hearing", "until all songs were heard")

    def _histogram(self, name: str, until: str) -> Histogram:
        return Histogram(
            f"musilingo_{name}_seconds",
            f"Seconds from a request {until}.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of them, in the format of Prometheus."""
        return generate_latest(self._registry)


class Counted:
    """An application whose requests are counted, the refused ones too."""

    def __init__(self, application: ASGIApp, metrics: Metrics):
        self._application, self._metrics = application, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        path = scope.get("path", "")
        path = path if path in _PATHS else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        await self._application(scope, receive, counted)
