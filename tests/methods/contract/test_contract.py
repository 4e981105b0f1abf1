"""The promises of `sam_jax.testing`, of every method of the library."""

import pytest

from sam_jax import testing
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@every_method()
def test_contract(name, check):
    check(cases.of(name))
