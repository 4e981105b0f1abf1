"""What tests of several folders share."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Programs that are compiled in half of the time, and run a few times only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
