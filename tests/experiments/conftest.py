import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Not here, where programs are measured, or take many steps."""
