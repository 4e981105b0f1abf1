import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# With sigma 1 the same batch twice leaves no displacement, see below.
TRAITS = Traits(settings={"sigma": 0.5})


def directions(dtype=jnp.float32, **coefficients):
    """Of the network on a new batch in each update, at weights that do not move."""
    tx, params = sam_jax.friendly_sam(0.3, **coefficients), problems.network(dtype)
    state, seen = tx.init(params), []
    for seed in range(6):
        batch = problems.batch(dtype, seed=seed)
        call = problems.gradients(problems.network_loss, batch)
        d, state = tx.update(call["grad_fn"](params), state, params, **call)
        seen.append(d)
    return seen


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_the_papers_form_is_the_codes_with_another_sigma(sigma):
    # g - sigma (lam m + (1 - lam) g) is parallel to g - sigma' m with
    # sigma' = sigma lam / (1 - sigma (1 - lam)).
    lam = 0.6
    papers = directions(jnp.float64, sigma=sigma, lam=lam, include_current=True)
    other = sigma * lam / (1 - sigma * (1 - lam))
    codes = directions(jnp.float64, sigma=other, lam=lam)
    for x, y in zip(papers, codes, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-10)
    same = directions(jnp.float64, sigma=sigma, lam=lam)[-1]["kernel"]
    equal = np.allclose(papers[-1]["kernel"], same, rtol=1e-10)
    assert equal == (sigma == 1.0)


def test_a_gradient_equal_to_the_average_gives_no_displacement():
    tx, params = sam_jax.friendly_sam(0.1), jnp.ones(2)
    state, grads = tx.init(params), jnp.array([3.0, 4.0])
    lengths = []
    for _ in range(3):
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w)
        lengths.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert lengths == pytest.approx([0.1, 0.0, 0.0], rel=1e-6)
