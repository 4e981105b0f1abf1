import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Theory is checked in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Not here, where a program takes many steps."""
