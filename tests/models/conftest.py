"""Networks are compiled fast and run once or twice."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def of_networks(quick_to_compile):
    pass
