"""How the released MusiLingo models are used: the settings of their authors.

They are in the code of the original and not in its files, so they are repeated here.
The configs of experiments start from them, and `chat` uses them for a release.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.pretrained.sources import RELEASED_WINDOW_FRAMES
from musilingo_jax.runtime.errors import UserError

DTYPE = "bfloat16"
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
)
# As the original evaluates; its demo has sliders for both.
GENERATE = replace(GREEDY, temperature=0.1, top_p=0.5)


def prompt_of(config: Mapping[str, Any]) -> PromptConfig:
    """The prompt of a release, whose `config.json` may name another template.

    The end sign and the length of answers in that file are not read: they belong to
    the first stage, in which no questions were asked.

    Raises:
      UserError: the template is not text, or does not have one `{}`.
    """
    template = config.get("prompt_template") or PROMPT.template
    if not isinstance(template, str):
        raise UserError(f"prompt_template = {template!r} in config.json is not text")
    return replace(PROMPT, template=template)
