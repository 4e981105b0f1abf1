"""What a method may ask of the examples of its group."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.train import passes


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_the_mean_over_a_subset_is_that_of_its_rows(chunks):
    generator = np.random.default_rng(0)
    losses, weights = generator.uniform(1, 2, (2, 8)).astype(np.float32)
    rows = np.array([5, 1, 7])
    examples = passes.Examples(jnp.asarray(losses), jnp.arange(8), jnp.asarray(weights))
    found = passes.subset(examples, jnp.asarray(rows), chunks)
    assert len(found.labels) % chunks == 0
    np.testing.assert_array_equal(found.labels[:3], rows)
    # The images stand for the losses.
    np.testing.assert_allclose(
        np.mean(found.weights * found.images),
        np.mean(weights[rows] * losses[rows]),
        rtol=1e-6,
    )
