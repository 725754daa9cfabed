"""Renders a Jinja template that somebody else wrote, without trusting it.

    python -m musilingo_jax.runtime.sandboxed_jinja < request.json > texts.json

Jinja's own sandbox keeps a template from files, modules and attributes of objects. It
does not keep it from running for ever or from filling the memory; so a template is
rendered in a process of its own, which has limits for both.
"""

import datetime
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from musilingo_jax.runtime.errors import UserError

SECONDS = 10
MEMORY = 2**30

DATE = datetime.date(2025, 7, 1)
"""What a template is told that needs to know what day it is."""


def render(template: str, contexts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts that a template makes of several sets of variables.

    Args:
      template: as the transformers library has chat templates.
      contexts: name → value, for each text; values that JSON can hold.

    Raises:
      UserError: the template is wrong, refuses the variables, takes too long or needs
        too much memory; the message begins with "the chat template".
    """
    request = json.dumps({"template": template, "contexts": [*contexts]})
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",  # PYTHONIOENCODING may name another one.
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the chat template does not end within {SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise UserError(f"the chat template cannot be rendered: {last[:200]}")
    return json.loads(done.stdout)


class _Now(jinja2.Undefined):
    """`strftime_now`, the date of today: always the same one, and only if need be.

    Templates that test whether it is defined have a date of their own. Others call it
    at once.
    """

    def __call__(self, style: str) -> str:
        return DATE.strftime(style)

    def __getattr__(self, name: str) -> Any:
        # Jinja asks what it may call for marks, and Undefined would raise another one.
        raise AttributeError(name)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, with which some templates mark what a model said: no text."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    request = json.load(sys.stdin)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(str(message))

    def to_json(value: Any, **options: Any) -> str:
        # Not Jinja's own, which writes for HTML.
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _Now(name="strftime_now")
    environment.filters["tojson"] = to_json
    template = environment.from_string(request["template"])
    json.dump([template.render(**one) for one in request["contexts"]], sys.stdout)


if __name__ == "__main__":
    try:
        _main()
    except Exception as error:  # A template raises anything.
        sys.exit(f"{type(error).__name__}: {error}".replace("\n", " "))
