"""The rows of metrics.jsonl: what each key means, and how a line is read.

    {"stage": "stage1", "step": 3, "time": 1722.5, "loss": 2.1, "learning_rate": …}
    {"stage": "stage1", "step": 3, "time": 1723.0, "validation_loss": 2.2}

An `UpdateRow` is about an update, a `ValidationRow` about a validation. Both begin with
the same three keys.
"""

from typing import Any, NotRequired, TypedDict, final

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import parse_json


class Speed(TypedDict):
    """The part of an `UpdateRow` about all updates since the previous one.

    Attributes:
      padding_share: share of the places for tokens that were padding.
      tokens_per_second: tokens without padding, of all devices. Missing if each of the
        updates had to be compiled first.
      model_tflops_per_second: 10¹² operations that the mathematics asks for
        (`flops.step_flops`) per second, of all devices. Missing as above.
      model_flop_utilisation: the same as a share of the devices' peak (the MFU of
        Chowdhery et al. 2022, PaLM). Missing as above, and if the peak is unknown.
    """

    padding_share: float
    tokens_per_second: NotRequired[float]
    model_tflops_per_second: NotRequired[float]
    model_flop_utilisation: NotRequired[float]


@final
class UpdateRow(Speed):
    """A row about an update.

    Attributes:
      stage: name of the stage.
      step: updates of the stage so far, this one included.
      time: when the row was written, in seconds since 1970.
      loss: nats per target token of the update's batch, before the update.
      learning_rate: of the update.
      gradient_norm: Euclidean norm of the gradient.
    """

    stage: str
    step: int
    time: float
    loss: float
    learning_rate: float
    gradient_norm: float


@final
class ValidationRow(TypedDict):
    """A row about a validation.

    Attributes:
      stage: name of the stage.
      step: updates of the stage so far.
      time: when the row was written, in seconds since 1970.
      validation_loss: nats per target token of all validation examples.
    """

    stage: str
    step: int
    time: float
    validation_loss: float


MetricsRow = UpdateRow | ValidationRow


def parse(line: bytes) -> MetricsRow | None:
    """The row in a line of metrics.jsonl; None if the line is damaged.

    Only the keys that every version of this program has written are required; all but
    the stage are finite numbers.
    """
    try:
        row = parse_json(line, "")
    except UserError:
        return None
    if not isinstance(row, dict):
        return None
    loss = "validation_loss" if "validation_loss" in row else "loss"
    numbers = {key: value for key, value in row.items() if key != "stage"}
    complete = (
        isinstance(row.get("stage"), str)
        and {"step", "time", loss} <= numbers.keys()
        and all(map(_is_number, numbers.values()))
        and isinstance(row["step"], int)
    )
    return row if complete else None  # type: ignore[return-value]  # Just checked.


def _is_number(value: Any) -> bool:
    """Whether a value is a number of which a plot can be made."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 2**63
