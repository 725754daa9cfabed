"""Requests that are made up from the server's own description: none is a fault."""

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
schemathesis = pytest.importorskip(
    "schemathesis", reason="needs the package schemathesis"
)

from helpers.serving import serving  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def described():
    with serving() as client:
        yield schemathesis.openapi.from_url(f"{client.at_work.address}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_a_fault(case):
    # That a conversation begins with a question and a song is not in the description.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
