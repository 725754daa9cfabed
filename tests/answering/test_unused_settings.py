"""Settings of decoding that are typed and change nothing are named."""

from dataclasses import replace

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.unused_settings import notes


def test_what_has_no_effect_is_named():
    typed = {"generate.top_p", "generate.length_penalty", "generate.beams", "run"}
    first, second = notes(GREEDY, typed)
    assert "generate.top_p has no effect here, only with a temperature" in first
    assert "generate.length_penalty has no effect here, only with more" in second
    assert notes(replace(GREEDY, temperature=0.5), typed) == [second]
    assert notes(replace(GREEDY, beams=4), typed) == [first]


def test_what_a_config_file_has_for_other_ways_is_not():
    assert notes(GREEDY, {"run", "generate.max_new_tokens"}) == []
