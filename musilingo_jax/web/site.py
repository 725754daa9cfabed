"""Opens the page at an address."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]  # An extra.
from gradio.themes import Default  # pyright: ignore[reportMissingImports]

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.web import cards, password

# Seconds between two looks for files that nobody has removed, and their age at most.
_CLEAN_EVERY, _OLDEST = 600, 7200


def free_port(host: str, port: int) -> int:
    """Checks that a port is free, before a model is loaded; of 0, finds one that is.

    Raises:
      UserError: it is not, or the address is none of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except UnicodeError as error:
        raise UserError(f"--host={host}: is no address") from error
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened at ({error.strerror}): choose another "
            "--port"
        ) from error


@contextmanager
def opened(
    page: gr.Blocks, *, host: str, port: int, secret: str | None, most_bytes: int
) -> Iterator[str]:
    """The page is open within the block; yields its address.

    Args:
      page: of `page.build`.
      host: the address to listen at.
      port: of it.
      secret: the password; None for none.
      most_bytes: of an upload.
    """
    page.delete_cache = (_CLEAN_EVERY, _OLDEST)
    page.queue(default_concurrency_limit=None, max_size=None, api_open=False)
    options: dict[str, Any] = {}
    if secret is not None:
        options["auth"] = lambda user, given: password.matches(secret, given)
        options["auth_message"] = "Any name, and the password of this page."
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=most_bytes,
        css=cards.STYLE,
        theme=Default(
            primary_hue="indigo",
            neutral_hue="slate",
            # Those of the browser's system: none is fetched.
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        **options,
    )
    try:
        yield address
    finally:
        page.close(verbose=False)
