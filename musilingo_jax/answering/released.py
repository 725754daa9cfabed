"""How the released MusiLingo models are used: the settings of their authors.

They are in the code of the original and not in its files, so they are repeated here.
The configs of experiments start from them, and `chat` uses them for a release.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from musilingo_jax.answering.config import GREEDY, GenerateConfig
from musilingo_jax.answering.prompts import MODEL_END, PromptConfig
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained.sources import RELEASED_WINDOW_FRAMES
from musilingo_jax.runtime.errors import UserError

# A training excerpt of 30 s is seven windows of 4.33 s.
MAX_WINDOWS = 7

PROMPT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=160,
)
FEATURES = FeatureConfig(
    window_frames=RELEASED_WINDOW_FRAMES,
    chunk_windows=MAX_WINDOWS,
    batch_size=4,
    reduction="pooled",
    level=0.0,  # Of MERT-v1, too: its extractor normalises.
)
# `top_k` is in none of their files: it is the default of `transformers` 4.28, which
# they used, for every answer that is drawn.
GENERATE = replace(GREEDY, temperature=0.1, top_k=50, top_p=0.5)


# MU-LLaMA's, whose authors trained with the text of a Python function where the input
# should be; so the released weights want it.
MU_LLAMA_PROMPT = PromptConfig(
    template="{}",
    instruction="Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n{}\n\n### Response:",
    end_sign=MODEL_END,
    max_answer_tokens=512,
)
MU_LLAMA_RELEASED_PROMPT = replace(
    MU_LLAMA_PROMPT,
    instruction="Below is an instruction that describes a task, paired with an input "
    "that provides further context. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{}\n\n### Input:\n<built-in function input>\n\n### "
    "Response:",
)
# A minute at a time, as it was heard for the published scores.
MU_LLAMA_FEATURES = replace(FEATURES, chunk_windows=14, reduction="layers")
MU_LLAMA_GENERATE = replace(GREEDY, temperature=0.6, top_p=0.8, max_new_tokens=512)


@dataclass(frozen=True)
class Style:
    """How one of the authors' two programs asks the model.

    Attributes:
      prompt: the conversation around a question.
      generate: how answers are decoded.
    """

    prompt: PromptConfig
    generate: GenerateConfig


EVALUATION, DEMO = "evaluation", "demo"
STYLES = {
    # `qa.py`, whose answers are those that the papers score. Its length penalty of 100
    # has no effect without a beam search.
    EVALUATION: Style(PROMPT, GENERATE),
    # `demo.py`: the song is a turn of its own, after a system text, and there is no
    # space at the end. Temperature (0.1 to 2) and beams (1 to 10) are sliders.
    DEMO: Style(
        replace(
            PROMPT,
            template="Give the following music: <Audio>AudioContent</Audio>. You will "
            "be able to see the music once I provide it to you. Please answer my "
            "questions.###Human: {}###Assistant:",
            instruction="<Audio><AudioHere></Audio>###Human: {}",
        ),
        replace(GENERATE, temperature=1.0, top_p=0.9, stopping="first_beam"),
    ),
}


def style_of(name: str) -> Style:
    """The style of that name.

    Raises:
      UserError: there is no such style.
    """
    if name not in STYLES:
        raise UserError(f"{name!r} is not a style: choose {' or '.join(STYLES)}")
    return STYLES[name]


def mu_llama_prompt_of(config: Mapping[str, Any]) -> PromptConfig:
    """The prompt of MU-LLaMA, or the one that an adapter of ours was trained with.

    Args:
      config: the content of the adapter's `config.json`.

    Raises:
      UserError: its template is not text.
    """
    text = config.get("prompt_template") or MU_LLAMA_RELEASED_PROMPT.instruction
    return replace(MU_LLAMA_RELEASED_PROMPT, instruction=_template(text))


def prompt_of(style: str, config: Mapping[str, Any]) -> PromptConfig:
    """The prompt of a release, whose `config.json` may name another template.

    The demo does not read that template. The end sign and the length of answers in that
    file are not read: they belong to the first stage, in which no questions were asked.

    Args:
      style: a name in `STYLES`.
      config: the content of the release's `config.json`.

    Raises:
      UserError: the style is unknown; or the template is not text, or does not have one
        `{}`.
    """
    prompt = style_of(style).prompt
    template = config.get("prompt_template")
    if not template or style == DEMO:
        return prompt
    return replace(prompt, template=_template(template))


def _template(template: Any) -> str:
    """The template of a prompt; UserError if it is not text."""
    if not isinstance(template, str):
        raise UserError(f"prompt_template = {template!r} in config.json is not text")
    return template
