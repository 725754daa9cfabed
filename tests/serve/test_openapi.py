"""Requests that are made up from the server's own description: none is a fault."""

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers.serving import serving
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip(
    "schemathesis", reason="needs the package schemathesis"
)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_is_a_fault(mode):
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    asked = 0
    # Texts that are too long are refused by their field, not by the size of all.
    with serving(body_bytes=1 << 26, held_bytes=1 << 28) as client:
        described = schemathesis.openapi.from_url(
            f"{client.at_work.address}/openapi.json"
        )
        for found in described.get_all_operations():
            operation = found.ok()
            if mode == "NEGATIVE" and operation.method != "post":
                continue  # Nothing about it can be wrong.
            wanted = operation.as_strategy(
                generation_mode=schemathesis.GenerationMode[mode]
            )

            @settings(
                max_examples=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=wanted)
            def check(case):
                nonlocal asked
                asked += 1
                # That a conversation begins with a question and a song is not in the
                # description, so what is right by it may be refused.
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            check()
    assert asked > 40
