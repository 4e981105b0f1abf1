"""The compositions of `sam_jax.contrib`: their formulas in NumPy, and the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import contrib, testing
from tests.methods import problems

ALL = (
    contrib.zsharp,
    contrib.monge_sam,
    contrib.gc_sam,
    contrib.light_sam,
    contrib.x_sam,
    contrib.mup_sam,
    contrib.functional_adam_sam,
)
pytestmark = pytest.mark.usefixtures("float64")


def perturbed_by(tx, grads, params):
    points = problems.points(tx, grads, tx.init(params), params)
    return jax.tree.map(lambda p, w: np.asarray(p - w), points[-1], params)


def some():
    generator = np.random.default_rng(0)
    params = {"a": generator.normal(size=(4, 3)), "b": generator.normal(size=5)}
    grads = {"a": generator.normal(size=(4, 3)), "b": generator.normal(size=5)}
    return jax.tree.map(jnp.asarray, (params, grads))


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(x)) for x in tree.values()))


def assert_same(found, expected, factor):
    for key, x in expected.items():
        np.testing.assert_allclose(found[key], factor * np.asarray(x), rtol=1e-10)


def test_zsharp_keeps_the_largest_z_scores_of_every_array():
    params, grads = some()
    found = perturbed_by(sam_jax.contrib.zsharp(0.3, quantile=0.6), grads, params)
    kept = {}
    for key, g in grads.items():
        z = np.abs(g - np.mean(g)) / np.std(g)
        kept[key] = np.where(z >= np.quantile(z, 0.6), g, 0)
    assert 0 < sum(np.count_nonzero(x) for x in kept.values()) < 17 / 2
    assert_same(found, kept, 0.3 / norm(kept))


def test_zsharp_takes_the_gradient_where_nothing_is_kept():
    # Of equal entries the z-scores are all the same, and the largest is a zero.
    params = {"a": jnp.zeros(4)}
    grads = {"a": jnp.array([0.0, 1.0, 1.0, 1.0])}
    found = perturbed_by(contrib.zsharp(1.0, quantile=1.0), grads, params)
    assert_same(found, grads, 1 / norm(grads))


def test_monge_sam_shrinks_with_the_gradient():
    params, grads = some()
    for scale in (1e-3, 1.0, 1e3):
        scaled = {key: scale * g for key, g in grads.items()}
        length = norm(scaled)
        found = perturbed_by(contrib.monge_sam(0.3), scaled, params)
        assert_same(found, scaled, 0.3 / length / np.sqrt(1 + length**2))


def test_gc_sam_centres_matrices_and_has_the_radius():
    params, grads = some()
    found = perturbed_by(contrib.gc_sam(0.3), grads, params)
    centred = {
        "a": grads["a"] - np.asarray(grads["a"]).mean(axis=0, keepdims=True),
        "b": grads["b"],
    }
    assert_same(found, centred, 0.3 / norm(centred))


def test_light_sam_is_adagrad_norm_twice():
    w, u, v = np.array([1.0, -2.0]), 1e-8, 1e-8
    hessian = np.array([1.0, 3.0])
    tx = optax.chain(contrib.light_sam(0.5), optax.sgd(0.7))
    params, grad_fn = jnp.asarray(w), lambda w: jnp.asarray(hessian) * w
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
        g = hessian * w
        u = np.hypot(u, np.linalg.norm(g))
        g = hessian * (w + 0.5 * g / u)
        v = np.hypot(v, np.linalg.norm(g))
        w = w - 0.7 * g / v
        np.testing.assert_allclose(params, w, rtol=1e-6)  # the roots are float32


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_x_sam_takes_a_part_along_the_eigenvector_away(alpha):
    hessian = np.array([[5.0, 1.0], [1.0, 1.0]])
    values, vectors = np.linalg.eigh(hessian)
    v, w = vectors[:, np.argmax(values)], np.array([1.0, -2.0])
    grad_fn = lambda w: jnp.asarray(hessian) @ w  # noqa: E731
    tx, params = contrib.x_sam(0.1, alpha=alpha, every=1), jnp.asarray(w)
    state = tx.init(params)
    for _ in range(2):  # the second iteration starts where the first one ended
        found, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    g = hessian @ w
    g = hessian @ (w + 0.1 * g / np.linalg.norm(g))
    unit = g / np.linalg.norm(g)
    np.testing.assert_allclose(found, unit - alpha * (unit @ v) * v, rtol=1e-5)


@pytest.mark.slow("a compilation for each")
@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_keeps_the_contract(method):
    # light_sam and x_sam are not SGD at radius 0: they scale the gradient.
    scaled = method in (contrib.light_sam, contrib.x_sam)
    traits = {"base": None} if scaled else {}
    if method is contrib.functional_adam_sam:
        traits = {"base": None, "needs": ("params", "functional_value_and_grad_fn")}
    with jax.enable_x64(False):
        testing.check_method(method, **traits)


def test_n_sam_descends_along_some_examples_from_the_perturbation_of_all():
    batch, w = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array(0.0)

    def grad_fn(w, rows):
        return jnp.mean(w - batch[rows])

    def directions(share):
        tx, found = contrib.n_sam(0.5, share=share), []
        state, grads = tx.init(w), grad_fn(w, jnp.arange(4))
        for _ in range(20):
            given = {"example_losses": batch, "subset_grad_fn": grad_fn}
            d, state = tx.update(grads, state, w, grad_fn=lambda w: 0 * w, **given)
            found.append(round(float(d), 6))
        return set(found)

    assert directions(1.0) == {-0.5 - 3.75}  # the mean of all
    assert directions(0.25) == {-0.5 - x for x in (1.0, 2.0, 4.0, 8.0)}
    pairs = (1.5, 2.5, 3.0, 4.5, 5.0, 6.0)
    assert directions(0.5) <= {-0.5 - x for x in pairs} and len(directions(0.5)) > 3
    with pytest.raises(ValueError, match="share"):
        contrib.n_sam(share=0.0)
    with pytest.raises(ValueError, match=r"static_args=\('share',\)"):
        optax.inject_hyperparams(contrib.n_sam)(share=0.5).init(w)
