"""Who makes the pairs, as the command line names it: its flags, and what they mean."""

import argparse
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.instruction import decoder, endpoint, making, wordings
from musilingo_jax.instruction.costs import Prices
from musilingo_jax.instruction.decoder import Decoder
from musilingo_jax.instruction.endpoint import Endpoint
from musilingo_jax.instruction.making import Plan
from musilingo_jax.instruction.subjects import Vocabulary
from musilingo_jax.jobs.engine import RAY
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.jobs.row_job import RowMaker
from musilingo_jax.models import int8
from musilingo_jax.pretrained import embedded_models, number_type
from musilingo_jax.pretrained.model_config import DTYPES
from musilingo_jax.runtime.command_line import nonempty, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note

TEMPLATES, DECODER, ENDPOINT = "templates", "decoder", "endpoint"
MAKERS = (TEMPLATES, DECODER, ENDPOINT)

# Values where a flag is not given. They are not defaults of the parser, so that a flag
# that means nothing here can be told from one that was left out.
_DEFAULTS: dict[str, Any] = {
    "max_new_tokens": 1024,
    "temperature": 0.7,
    "dtype": number_type.AUTO,
    "quantization": "",
    "template": "",
    "end_sign": "",
    "rows": 8,
    "key_env": "",
    "in_flight": 8,
    "timeout": 120.0,
    "attempts": 6,
}
_BOTH = ("max_new_tokens", "temperature")
_OWN = {
    TEMPLATES: (),
    DECODER: ("language_model", "dtype", "quantization", "template", "end_sign", "rows")
    + _BOTH,
    ENDPOINT: ("url", "model_name", "key_env", "in_flight", "timeout", "attempts")
    + ("price_in", "price_out", "yes")
    + _BOTH,
}
_NEEDED = {TEMPLATES: (), DECODER: ("language_model",), ENDPOINT: ("url", "model_name")}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class Chosen(NamedTuple):
    """Who makes the pairs.

    Attributes:
      plan: how.
      identity: what the pairs depend on, besides what they are about.
      load: returns what makes rows, in whatever process it is called.
      endpoint: what is asked and may be paid for; None if nothing is.
      prices: of an endpoint.
    """

    plan: Plan
    identity: StoredIdentity
    load: Callable[[], RowMaker]
    endpoint: Endpoint | None
    prices: Prices


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags by which a maker is chosen and told what to do."""
    parser.add_argument(
        "--by",
        metavar="WHO",
        choices=MAKERS,
        default=TEMPLATES,
        help=f"makes the pairs: {', '.join(MAKERS)} (default: {TEMPLATES})",
    )
    both = parser.add_argument_group(f"by {DECODER} or {ENDPOINT}").add_argument
    both(
        "--max-new-tokens",
        metavar="N",
        type=positive,
        help="of a reply, which is then cut (default: 1024)",
    )
    both(
        "--temperature",
        metavar="N",
        type=float,
        help="0 for the likeliest words (default: 0.7)",
    )
    own = parser.add_argument_group(f"by {DECODER}").add_argument
    own("--language-model", type=nonempty, help="its folder or name")
    own(
        "--dtype",
        choices=(number_type.AUTO, *DTYPES),
        help="of its weights (default: auto)",
    )
    own("--quantization", choices=int8.CHOICES[1:], help="of its matrices")
    own(
        "--template",
        type=nonempty,
        help="its turns, with {} for a request (default: its own chat template)",
    )
    own("--end-sign", type=nonempty, help="what ends its turn, with --template")
    own(
        "--rows",
        metavar="N",
        type=positive,
        help="replies that are written at the same time (default: 8)",
    )
    other = parser.add_argument_group(f"by {ENDPOINT}").add_argument
    other("--url", type=nonempty, help="such as http://localhost:8000/v1")
    other("--model-name", type=nonempty, help="of the model there")
    other("--key-env", type=nonempty, help="the variable that holds the key")
    other(
        "--in-flight",
        metavar="N",
        type=positive,
        help="requests at the same time (default: 8)",
    )
    other("--timeout", metavar="SECONDS", type=float, help="for a reply (default: 120)")
    other(
        "--attempts",
        metavar="N",
        type=positive,
        help="at most, of a request that fails (default: 6)",
    )
    other("--price-in", metavar="N", type=float, help="of a million tokens to read")
    other("--price-out", metavar="N", type=float, help="of a million to write")
    other("--yes", action="store_true", help="agree to the cost without being asked")


def check(given: argparse.Namespace) -> None:
    """Checks that the flags are those of the maker, and can be meant.

    Raises:
      UsageError: one is missing, or is for another maker, or is out of bounds.
    """
    named = {name for names in _OWN.values() for name in names}
    for name in sorted(named - {*_OWN[given.by]}):
        value = getattr(given, name)
        if value is not None and value is not False:
            makers = " or ".join(f"--by={by}" for by in MAKERS if name in _OWN[by])
            raise UsageError(f"{_flag(name)} is for {makers}")
    for name in _NEEDED[given.by]:
        if getattr(given, name) is None:
            raise UsageError(f"--by={given.by} needs {_flag(name)}")
    if (given.template is None) != (given.end_sign is None):
        raise UsageError("--template and --end-sign belong together: give both")
    if given.by == DECODER and given.engine == RAY and _value(given, "dtype") == "auto":
        raise UsageError(
            "--engine=ray: this process does not know the processors of the cluster; "
            "name a type with --dtype"
        )
    for name, least in (("temperature", 0), ("price_in", 0), ("price_out", 0)):
        value = getattr(given, name)
        if value is not None and not least <= value < 1e9:
            raise UsageError(f"{_flag(name)}={value:g}: must be {least} or more")
    if given.timeout is not None and not 0 < given.timeout < 1e6:
        raise UsageError(f"--timeout={given.timeout:g}: must be more than 0 seconds")
    if given.by == ENDPOINT:
        _check_url(given.url, with_key=given.key_env is not None)


def choose(given: argparse.Namespace, vocabulary: Vocabulary, folder: Path) -> Chosen:
    """What the command line names.

    Args:
      given: the command line, once it is checked.
      vocabulary: of all clips.
      folder: of the job.

    Raises:
      UserError: the language model cannot be found, or not be asked.
    """
    prices = Prices(given.price_in, given.price_out)
    plan = Plan(vocabulary, given.pairs, given.seed, TEMPLATES)
    match given.by:
        case "decoder":
            own = _decoder(given)
            plan = replace(plan, maker=own.source)
            load = functools.partial(_by_decoder, plan, own)
            return Chosen(plan, plan.identity(own.identity), load, None, prices)
        case "endpoint":
            asked = _endpoint(given, folder)
            plan = replace(plan, maker=asked.model)
            load = functools.partial(_by_endpoint, plan, asked)
            return Chosen(plan, plan.identity(asked.identity), load, asked, prices)
    further = {"prompt": wordings.VERSION}
    load = functools.partial(making.by_rules, plan)
    return Chosen(plan, plan.identity(further), load, None, prices)


def _by_decoder(plan: Plan, own: Decoder) -> RowMaker:
    return making.by_model(plan, decoder.load(own))


def _by_endpoint(plan: Plan, asked: Endpoint) -> RowMaker:
    return making.by_model(plan, endpoint.load(asked))


def _decoder(given: argparse.Namespace) -> Decoder:
    source = embedded_models.exact(given.language_model)
    dtype, quantization = _value(given, "dtype"), _value(given, "quantization")
    if dtype == number_type.AUTO:
        parts = {"language_model": source}
        dtype = number_type.of_this_machine(parts, quantization)
    return Decoder(
        source=source,
        dtype=dtype,
        quantization=quantization,
        template=_value(given, "template"),
        end_sign=_value(given, "end_sign"),
        generate=replace(
            GREEDY,
            max_new_tokens=_value(given, "max_new_tokens"),
            temperature=_value(given, "temperature"),
            seed=given.seed,
            batch_size=_value(given, "rows"),
        ),
        pairs=given.pairs,
    )


def _endpoint(given: argparse.Namespace, folder: Path) -> Endpoint:
    return Endpoint(
        url=given.url,
        model=given.model_name,
        key_env=_value(given, "key_env"),
        in_flight=_value(given, "in_flight"),
        timeout=_value(given, "timeout"),
        attempts=_value(given, "attempts"),
        temperature=_value(given, "temperature"),
        max_tokens=_value(given, "max_new_tokens"),
        pairs=given.pairs,
        seed=given.seed,
        folder=folder,
    )


def _check_url(url: str, *, with_key: bool) -> None:
    """Checks that an address can be asked; notes a key that others could read.

    Raises:
      UsageError: it cannot.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = False
    if not known or not url.isascii() or " " in url:
        raise UsageError(
            f"--url={url}: is no address; give one such as http://localhost:8000/v1"
        )
    if parts.username or parts.query:
        raise UsageError(
            "--url: leave out what is before an @ or after a ?; a key comes from the "
            "variable that --key-env names"
        )
    if with_key and parts.scheme == "http" and parts.hostname not in _LOCAL_HOSTS:
        print_note(f"note: the key is sent to {parts.hostname} without encryption")


def _value(given: argparse.Namespace, name: str) -> Any:
    value = getattr(given, name)
    return _DEFAULTS[name] if value is None else value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
