import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import checks, errors
from sam_jax.data import mixing

ROWS, SIDE = 400, 12
LABELS = jnp.arange(ROWS)


def mixed(mixup, cutmix, groups=2):
    """Constant images, whose pixel is the number of the row."""
    images = jnp.broadcast_to(1.0 * LABELS.reshape(-1, 1, 1, 1), (ROWS, SIDE, SIDE, 1))
    mix = mixing.make_mix(mixup, cutmix, ROWS, groups)
    found, of = mix(jax.random.key(0), images, LABELS)
    return np.asarray(found)[..., 0], np.asarray(of.labels), np.asarray(of.shares)


def test_the_second_example_is_the_next_one_of_the_group():
    _, labels, _ = mixed(1.0, 0.0)
    first = (np.arange(200) - 1) % 200
    np.testing.assert_array_equal(labels, [*first, *(200 + first)])


def test_mixup_is_the_mean_that_the_shares_say():
    images, labels, shares = mixed(1.0, 0.0)
    expected = shares * np.arange(ROWS) + (1 - shares) * labels
    np.testing.assert_allclose(images, expected[:, None, None] + 0 * images, rtol=1e-5)
    assert len(np.unique(shares)) == ROWS and abs(shares.mean() - 0.5) < 0.05
    # Beta(1, 1) is uniform, Beta(0.1, 0.1) nearly 0 or 1.
    assert np.mean(np.abs(shares - 0.5) > 0.45) < 0.2
    assert np.mean(np.abs(mixed(0.1, 0.0)[2] - 0.5) > 0.45) > 0.5


def test_cutmix_is_a_box_of_the_second_image_whose_area_the_shares_say():
    images, labels, shares = mixed(0.0, 1.0)
    is_own = images == np.arange(ROWS)[:, None, None]
    assert (is_own | (images == labels[:, None, None])).all()
    np.testing.assert_allclose(is_own.mean((1, 2)), shares, atol=1e-6)
    for own in is_own:  # rows and columns of the box, and nothing else
        box = ~own
        assert (box == np.outer(box.any(1), box.any(0))).all()
        assert np.count_nonzero(np.diff(box.any(1).astype(int))) <= 2
    assert len(np.unique(shares)) > 30 and 0.3 < shares.mean() < 0.8


def test_with_both_half_of_the_images_are_means():
    images, labels, _ = mixed(1.0, 1.0)
    own, other = np.arange(ROWS)[:, None, None], labels[:, None, None]
    boxed = ((images == own) | (images == other)).all((1, 2))
    assert 0.4 < boxed.mean() < 0.6


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(checks.BadValue, match="mixup"):
        mixing.make_mix(-1.0, 0.0, 4, 1)
    with pytest.raises(errors.UserError, match="two examples"):
        mixing.make_mix(1.0, 0.0, 4, 4)
