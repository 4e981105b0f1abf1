"""`check`: each mistake by its sentence, and quiet where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.contract import cases

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}
CURVATURE = jnp.array([1.0, 5.0, 2.0])


def loss(params):
    return jnp.sum(CURVATURE * params["w"] ** 2) / 2 + jnp.cosh(params["b"])


SAM, SGD = sam_jax.sam(0.05), optax.sgd(0.1)
GRADIENT = jax.value_and_grad(loss)
UPHILL = "^the update goes uphill.*exactly one element takes the step"
BEHIND = r"^the method perturbs against the gradient: it comes after the optimizer"
BEFORE = "^something before the method changes its gradient: put clipping"
NOTHING = "^nothing is perturbed: rho is zero, now and in later updates, the mask"


pytestmark = pytest.mark.usefixtures("promotion_of_optax")


def assert_refused(message, tx=None, gradient=GRADIENT, params=PARAMS, **keywords):
    tx = optax.chain(SAM, SGD) if tx is None else tx
    with pytest.raises(sam_jax.checks.BadValue, match=message) as refused:
        sam_jax.check(tx, params, gradient, **keywords)
    assert "\n" not in str(refused.value)


@cases.every_method("sam", "extragradient")
def test_says_nothing_of_a_right_chain(name):
    def base(learning_rate):
        clip = optax.clip_by_global_norm(1.0)
        return optax.chain(clip, optax.adamw(learning_rate, weight_decay=10.0))

    params = problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    call.pop("value"), call.pop("grad_fn")
    gradient = call.pop("value_and_grad_fn")
    sam_jax.check(cases.optimizer(name, base=base), params, gradient, **call)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(sam_jax.late_phase(SAM, start=100), SGD),
        optax.chain(sam_jax.sam(lambda count: 0.1 * jnp.float32(count)), SGD),
        optax.chain(SAM, optax.sgd(lambda count: 0.1 * jnp.float32(count))),
        optax.inject_hyperparams(lambda rho: optax.chain(sam_jax.sam(rho), SGD))(0.1),
        sam_jax.with_grad_fn(optax.chain(SAM, SGD), jax.grad(loss)),
        optax.chain(sam_jax.sam(lambda c: jnp.where(c < 100, 0.0, 0.05)), SGD),
        optax.chain(
            sam_jax.every_k(sam_jax.sam(lambda c: 0.05 * jnp.float32(c > 99)), 7), SGD
        ),
    ],
    ids=[
        "later",
        "radius from zero",
        "rate from zero",
        "injected",
        "bound",
        "radius later",
        "every seventh",
    ],
)
def test_says_nothing_of_what_begins_later_or_is_wrapped(tx):
    sam_jax.check(tx, PARAMS, GRADIENT)


def test_a_pair_of_loss_and_gradient_may_be_a_list():
    sam_jax.check(optax.chain(SAM, SGD), PARAMS, lambda w: list(GRADIENT(w)))


def test_a_silent_method_is_to_be_checked_aloud():
    tx = optax.chain(sam_jax.without_diagnostics(SAM), SGD)
    assert_refused("^the method has no diagnostics, by which it is judged", tx)


def test_says_nothing_of_noise_in_few_dimensions():
    tx = optax.chain(sam_jax.random_sam(0.05, seed=0), SGD)  # its first noise is down
    sam_jax.check(tx, jnp.array(0.7), jax.value_and_grad(lambda p: p**2))


def test_says_nothing_of_a_rate_that_follows_the_loss():
    def gradient(w):
        return jnp.sum(w**4), 4 * w**3

    tx = optax.chain(SAM, optax.polyak_sgd(1.0))
    sam_jax.check(tx, jnp.array([0.5, -1.0]), gradient)


def test_says_nothing_of_parameters_of_a_class_without_equality():
    @jax.tree_util.register_pytree_node_class
    class Line:
        def __init__(self, *leaves):
            self.leaves = leaves

        def tree_flatten(self):
            return self.leaves, None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    params = Line(jnp.ones(2), jnp.array(0.5))
    squares = jax.value_and_grad(
        lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))
    )
    sam_jax.check(optax.chain(SAM, SGD), params, squares)
    other = lambda p: (squares(p)[0], Line(jnp.ones(3), p.leaves[1]))  # noqa: E731
    assert_refused("^value_and_grad_fn must return grads", None, other, params)


def test_functions_that_are_no_gradients_are_passed_on_as_they_are():
    def update(updates, state, params=None, *, report, **keywords):
        assert report("a", by="name") == "an answer"
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda _: (), update)
    sam_jax.check(
        optax.chain(SAM, SGD, tx), PARAMS, GRADIENT, report=lambda x, by: "an answer"
    )


@pytest.mark.parametrize(
    "tx",
    [
        SAM,
        optax.chain(SAM, SGD, SGD),
        optax.chain(SAM, optax.sgd(0.01), optax.scale_by_learning_rate(0.1)),
        optax.chain(SAM, optax.scale(0.1)),
        optax.chain(sam_jax.momentum_sam(0.1), SGD),
        optax.chain(sam_jax.decoupled_wsam(0.1), optax.sgd(0.1)),
        # Where it is left out, the gradient itself is what comes out.
        sam_jax.every_k(optax.chain(SAM, SGD), 5),
        optax.chain(SAM, optax.sgd(lambda count: 0.1 * jnp.float32(count)), SGD),
    ],
    ids=[
        *("none", "two", "two rates", "sign", "momentum_sam", "decoupled_wsam"),
        *("left out", "two from zero"),
    ],
)
def test_uphill(tx):
    assert_refused(UPHILL, tx)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(SGD, SAM),
        optax.chain(optax.sign_sgd(0.1), SAM),
        optax.chain(SGD, SAM, optax.scale(-1.0)),
        optax.chain(SGD, sam_jax.late_phase(SAM, 100)),
    ],
    ids=["sgd", "sign", "turned back", "later"],
)
def test_the_method_behind_the_optimizer(tx):
    assert_refused(BEHIND, tx)


@pytest.mark.parametrize(
    "before",
    [
        optax.clip_by_global_norm(1.0),
        optax.clip_by_global_norm(100.0),  # above the norm of this batch
        optax.scale_by_sign(),
        optax.add_decayed_weights(0.1),
        optax.trace(0.9),  # in its first update nothing
        optax.scale(2.0),
        optax.centralize(),
    ],
    ids=["clip", "clip later", "sign", "decay", "momentum", "scale", "centre"],
)
def test_something_before_the_method(before):
    params = PARAMS | {"matrix": jnp.arange(6.0).reshape(2, 3)}
    gradient = jax.value_and_grad(lambda p: loss(p) + jnp.sum(p["matrix"] ** 2))
    assert_refused(BEFORE, optax.chain(before, SAM, SGD), gradient, params)


def test_weight_decay_behind_the_optimizer():
    decay = optax.add_decayed_weights(0.1)
    assert_refused("^the weights grow where the", optax.chain(SAM, SGD, decay))
    sam_jax.check(optax.chain(SAM, decay, SGD), PARAMS, GRADIENT)
    noise = optax.add_noise(1.0, 0.5, 0)  # the first number is along these weights
    square = jax.value_and_grad(lambda p: p**2)
    sam_jax.check(optax.chain(SAM, SGD, noise), jnp.array(0.7), square)


def test_two_methods_and_none():
    two = optax.chain(SAM, sam_jax.every_k(sam_jax.asam(0.1), 2), SGD)
    assert_refused("^there must be one method in the chain.*there are 2", two)
    assert_refused("^there must be one method.*by its diagnostics.*there are 0", SGD)


def test_wrappers_that_drop_or_mix_gradients():
    plain = optax.GradientTransformation(SGD.init, SGD.update)
    assert_refused("^tx takes no keywords: a wrapper, such as optax.lookahead", plain)
    steps = optax.MultiSteps(optax.chain(SAM, SGD), 2)
    assert_refused("^optax.MultiSteps accumulates the first gradient only", steps)

    def dropping(updates, state, params=None, **keywords):
        return optax.chain(SAM, SGD).update(updates, state, params)

    wrapper = optax.GradientTransformationExtraArgs(
        optax.chain(SAM, SGD).init, dropping
    )
    with pytest.raises(ValueError, match=r"grad_fn is missing.*a wrapper dropped it"):
        sam_jax.check(wrapper, PARAMS, GRADIENT)


@pytest.mark.parametrize(
    "method, params",
    [
        (sam_jax.sam(0.0), PARAMS),
        (sam_jax.sam(0.1, mask={"w": False, "b": False}), PARAMS),
        (sam_jax.momentum_sam(0.1, rho=0.0), PARAMS),
        (SAM, jax.tree.map(lambda w: (100 * w).astype(jnp.bfloat16), PARAMS)),
    ],
    ids=["rho", "mask", "momentum", "rounding"],
)
def test_nothing_is_perturbed(method, params):
    gradient = jax.value_and_grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(p))))
    tx = optax.chain(method, optax.identity())
    assert_refused(NOTHING, tx, gradient, params)


def test_a_gradient_that_differs_from_call_to_call():
    draws = np.random.default_rng(0)

    def fresh(params):
        keep = jnp.asarray(draws.random(3) < 0.5, jnp.float32)
        return jax.value_and_grad(lambda p: loss(p | {"w": keep * p["w"]}))(params)

    assert_refused(
        "^value_and_grad_fn returns another gradient when it is", None, fresh
    )


@pytest.mark.parametrize(
    "gradient",
    [
        jax.grad(loss),
        jax.value_and_grad(lambda p: (loss(p), {"accuracy": 1.0}), has_aux=True),
        lambda params: (jnp.ones(3), params),
        lambda params: (loss(params), params, 0),
    ],
    ids=["grad", "has_aux", "losses", "three"],
)
def test_a_function_that_returns_something_else(gradient):
    message = r"^value_and_grad_fn must return \(loss, grads\), the loss a scalar"
    assert_refused(message, None, gradient)


def test_grads_of_another_structure():
    message = "^value_and_grad_fn must return grads like params"
    assert_refused(message, None, lambda p: (loss(p), {"w": p["w"]}))
    assert_refused(message, None, lambda p: (loss(p), p | {"w": jnp.ones(2)}))


def test_a_gradient_of_zero():
    assert_refused(
        "^the gradient is zero", None, lambda p: (1.0, optax.tree.zeros_like(p))
    )


def test_what_is_not_finite():
    def beyond(bad):
        """NaN where w[0] is above 1, where the ascent leads."""
        return lambda p: loss(p) + jnp.where(p["w"][0] > 1.0, bad, 0.0)

    nan = jnp.array([jnp.nan, 1.0, 1.0])
    at_weights = lambda p: (loss(p), p | {"w": nan})  # noqa: E731
    assert_refused("^loss or gradient is not finite at the weights", None, at_weights)
    there = jax.value_and_grad(beyond(jnp.nan))
    assert_refused("^loss or gradient is not finite at the perturbed", None, there)
    root = optax.stateless(lambda u, _: jax.tree.map(lambda x: jnp.sqrt(-abs(x)), u))
    assert_refused("^the update is not finite, although", optax.chain(SAM, SGD, root))


def test_a_state_that_changes_its_type():
    growing = optax.GradientTransformation(
        lambda _: (), lambda u, s, p=None: (u, (*s, jnp.zeros([])))
    )
    message = (
        r"an update must leave the state's structure, shapes and dtypes.*\[\] after"
    )
    assert_refused(message, optax.chain(SAM, SGD, growing))
