"""How the released MusiLingo models hear and are asked: the numbers of their authors.

They stand in the original's code and not in its files, so that they stand here.
Configurations of experiments begin with them, and `chat` uses them for a release.
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
# As the original evaluates; its demo lets people choose.
GENERATE = replace(GREEDY, temperature=0.1, top_p=0.5)


def prompt_of(config: Mapping[str, Any]) -> PromptConfig:
    """The prompt of a release, whose `config.json` may have another template.

    The end sign and the length of answers that it also has are those of the first
    stage, in which no questions were asked.

    Raises:
      UserError: it is no template.
    """
    template = config.get("prompt_template") or PROMPT.template
    if not isinstance(template, str):
        raise UserError(f"prompt_template = {template!r} in config.json is no text")
    return replace(PROMPT, template=template)
