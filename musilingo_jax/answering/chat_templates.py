r"""The prompt of a model that was trained to follow instructions, from its own files.

Such a model comes with a template in Jinja, which turns a conversation into the text
that it was trained on. It is rendered once, with marks in place of what people say, and
becomes a `PromptConfig`, which the config of the run records:

    conversation    question, answer, question, and the place of the next answer
    rendered        <|im_start|>user⏎Q<|im_end|>⏎<|im_start|>assistant⏎
                    A<|im_end|>⏎<|im_start|>user⏎Q<|im_end|>⏎<|im_start|>assistant⏎
    template        <|im_start|>user⏎{}<|im_end|>⏎<|im_start|>assistant⏎
    next_turn       <|im_end|>⏎<|im_start|>assistant⏎{}<|im_end|>⏎<|im_start|>user⏎{}
    end_sign        <|im_end|>

Templates are told that the model does not think aloud (`enable_thinking`), and are not
told today's date, so that a prompt is the same on every day. Where one has no date of
its own, as SmolLM3's, it is told `sandboxed_jinja.DATE`.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.pretrained import model_config, sources, tokenizer
from musilingo_jax.pretrained.tensor_files import CONFIG
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime import sandboxed_jinja
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import print_note

CHAT_TEMPLATE = "<ChatTemplate>"
"""As the `template` of a prompt in a config: the language model's own chat template."""

_FILE, _TOKENIZER_CONFIG, _OLD = (
    "chat_template.jinja",
    "tokenizer_config.json",
    "chat_template.json",
)
# What people say, in the rendered text: nothing that a template holds, and of which
# something differs if it writes what is said in capitals, escaped or the like.
_SAID = "Musi\N{EIGHTH NOTE}LinGo<&'\"{}\"'&>moRK"


def settle(config: ConfigDict) -> None:
    """Replaces `CHAT_TEMPLATE` in the prompts of a config's stages, for good.

    To be called before anything reads the stages.

    Raises:
      UserError: the language model has no chat template, or none that can be used.
    """
    for name in config.get("stages", ()):
        prompt = config.get(name, {}).get("prompt")
        if not isinstance(prompt, ConfigDict):
            continue
        if prompt.get("template") != CHAT_TEMPLATE:
            continue
        source = model_config.named(config, "language_model")
        part = sources.find(source, "language_model", weights=False)
        folder = part.tokenizer or part.folder
        made = prompt_of(
            folder,
            instruction=prompt.get("instruction", ""),
            max_answer_tokens=prompt.get("max_answer_tokens", 0),
        )
        prompt.update(ConfigDict(asdict(made)))
        _tell_if_trained_otherwise(config, name, folder)


def _tell_if_trained_otherwise(config: ConfigDict, stage: str, folder: Path) -> None:
    """Says on stderr if the run was made with another prompt.

    Its model's template may have been changed since. Who trains on is refused anyway.
    """
    path = Path(config.get("run") or "") / CONFIG
    if not config.get("run") or not path.is_file():
        return
    recorded = read_json(path).get(stage)
    recorded = recorded.get("prompt") if isinstance(recorded, Mapping) else None
    if not isinstance(recorded, Mapping):
        return
    prompt, keys = config[stage].prompt, ("template", "next_turn", "end_sign")
    if others := [key for key in keys if recorded.get(key, "") != prompt[key]]:
        print_note(
            f"note: {config.run} was trained with another {stage}.prompt than the chat "
            f"template of {folder} makes, which is used here; to ask as in training, "
            f"take {', '.join(others)} from {path}"
        )


def prompt_of(
    folder: Path, *, instruction: str, max_answer_tokens: int
) -> PromptConfig:
    """The prompt that a model's chat template makes.

    Args:
      folder: of the language model, with its tokenizer and template.
      instruction: what a person says, as in `PromptConfig`.
      max_answer_tokens: as in `PromptConfig`.

    Raises:
      UserError: the folder has no chat template, or one that cannot be rendered, or
        that puts the turns of a conversation in another form when more follow.
    """
    words = tokenizer.load(folder)
    asked, said, again = (_SAID.format(letter) for letter in "QAR")
    user, other = {"role": "user", "content": asked}, {"role": "user", "content": again}
    one = [user]
    three = [user, {"role": "assistant", "content": said}, other]
    try:
        single, several = sandboxed_jinja.render(
            _template(folder),
            [_context(words, folder, messages) for messages in (one, three)],
        )
        before, after = _split(single, asked)
        opening, rest = _split(several, asked)
        answered, rest = _split(rest, said)
        following, closing = _split(rest, again)
        if opening != before or closing != after:
            raise UserError(
                "the chat template writes the first question, or the place of the "
                "last answer, in another way when there are several turns"
            )
        sign = _sign(words, following)
    except UserError as error:
        raise UserError(f"{folder}: {error}; write prompt.template yourself") from error
    return PromptConfig(
        template=before + "{}" + after,
        instruction=instruction,
        end_sign=sign,
        max_answer_tokens=max_answer_tokens,
        next_turn=answered + "{}" + following + "{}",
        special_tokens=True,
    )


def _context(
    words: Tokenizer, folder: Path, messages: list[dict[str, str]]
) -> dict[str, Any]:
    """The variables of a template, as the transformers library names them."""
    named = {token: spelling for spelling, token in words.special.items()}
    roles = {"bos_token": words.start, "eos_token": words.end}
    spelled = {
        role: named[token] for role, token in roles.items() if token in named
    } | _named_tokens(folder)
    return spelled | {
        "messages": messages,
        # None, and not undefined, as in the transformers library.
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "enable_thinking": False,
    }


def _named_tokens(folder: Path) -> dict[str, str]:
    """The tokens that `tokenizer_config.json` names, which templates may write."""
    path = folder / _TOKENIZER_CONFIG
    said = read_json(path) if os.path.lexists(path) else {}
    spelled = {
        name: value.get("content") if isinstance(value, Mapping) else value
        for name, value in said.items()
        if name.endswith("_token")
    }
    return {name: text for name, text in spelled.items() if isinstance(text, str)}


def _template(folder: Path) -> str:
    """The Jinja text.

    Raises:
      UserError: there is none.
    """
    path = folder / _FILE
    if os.path.lexists(path):
        try:
            with io.TextIOWrapper(open_regular_file(path), "utf-8-sig") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"its {_FILE} cannot be read ({error})") from error
    for name in (_TOKENIZER_CONFIG, _OLD):
        path = folder / name
        said = read_json(path) if os.path.lexists(path) else {}
        template = said.get("chat_template")
        if isinstance(template, list):  # Several, by name.
            default = (
                one.get("template")
                for one in template
                if isinstance(one, Mapping) and one.get("name") == "default"
            )
            template = next(default, None)
        if isinstance(template, str):
            return template
    raise UserError(
        f"has no chat template ({_FILE}, or chat_template in its {_TOKENIZER_CONFIG}), "
        "so it is perhaps not a model for conversations"
    )


def _split(text: str, mark: str) -> tuple[str, str]:
    """The text before and after what somebody says.

    Raises:
      UserError: it is not there once.
    """
    if text.count(mark) != 1:
        raise UserError(
            f"the chat template writes what is said {text.count(mark)} times instead "
            "of once"
        )
    if "{}" in text:
        raise UserError("the chat template writes {} itself")
    before, after = text.split(mark)
    return before, after


def _sign(words: Tokenizer, following: str) -> str:
    """The end sign in what follows an answer: the first special token, behind space.

    Raises:
      UserError: there is none, or text is before it.
    """
    places = {
        following.find(spelling): spelling
        for spelling in sorted(words.special, key=len)
        if spelling in following and spelling.strip()
    }
    if not places:
        raise UserError("the chat template ends an answer with no special token")
    first = min(places)
    if following[:first].strip():
        raise UserError(
            f"the chat template ends an answer with {following[:first].strip()!r}, "
            "which is no special token"
        )
    return places[first]
