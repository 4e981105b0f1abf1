"""What methods share that take the step themselves."""

import optax
import pytest

import sam_jax


@pytest.mark.parametrize("name", ["momentum_sam", "decoupled_wsam", "lookbehind"])
@pytest.mark.parametrize(
    "base", [optax.sgd(0.1), None, "sgd", lambda learning_rate: None]
)
def test_a_base_that_is_no_factory_is_refused_with_one_that_is(name, base):
    with pytest.raises(sam_jax.checks.BadValue, match=r"such as optax.sgd and not"):
        getattr(sam_jax, name)(0.1, base=base)
