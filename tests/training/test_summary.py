"""What is suggested next is the command that was typed, without what was for once."""

import pytest
from absl import flags

from musilingo_jax.training import summary


@pytest.fixture
def values():
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "", flag_values=values)
    flags.DEFINE_string("config.run", None, "", flag_values=values)
    flags.DEFINE_string("profile", None, "", flag_values=values)
    flags.DEFINE_string("profiles", None, "", flag_values=values)
    flags.DEFINE_integer("process", None, "", flag_values=values)
    flags.DEFINE_bool("distributed", False, "", flag_values=values)
    return values


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["--config=x.py", "--profile=2:2"], ["--config=x.py"]),
        (["--profile", "2:2", "--config", "x.py"], ["--config", "x.py"]),
        (["-profile", "2:2", "--config=x.py"], ["--config=x.py"]),
        (["--distributed", "--config.run", "profile"], ["--config.run", "profile"]),
        (["--nodistributed", "--config=x.py"], ["--config=x.py"]),
        (["--process", "1", "--profiles=3"], ["--profiles=3"]),
        (["--config.run", "-1", "--process=1"], ["--config.run", "-1"]),
        (["--profile"], []),
    ],
)
def test_what_was_for_once_is_left_out(values, typed, kept):
    ours = ("profile", "process", "distributed")
    assert summary.without(values, typed, ours) == kept
