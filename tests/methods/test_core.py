import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import sam_jax
from sam_jax import methods
from tests.methods import problems


def sam_ascent(rho=0.1):
    return optax.chain(sam_jax.normalize(), sam_jax.scale(rho))


def one_update(tx, params, loss=problems.network_loss, args=None, **keywords):
    args = (problems.batch(),) if args is None else args
    call = problems.gradients(loss, *args)
    return tx.update(
        call["grad_fn"](params), tx.init(params), params, **call, **keywords
    )


def assert_close(actual, expected, rtol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol)


@pytest.mark.parametrize("name", ["sam", "looksam", "gsam", "vasso"])
def test_a_schedule_that_returns_an_array_is_refused(name):
    coefficient = {"looksam": "alpha", "gsam": "alpha", "vasso": "theta"}.get(
        name, "rho"
    )
    tx = getattr(sam_jax, name)(**{coefficient: lambda count: jnp.full(2, 0.1)})
    with pytest.raises(sam_jax.checks.BadValue, match=r"one number.* shape \(2,\)"):
        one_update(tx, problems.network())


# ── Ascent and combine ───────────────────────────────────────────────────────────────


def test_composes_a_method_without_a_name():
    # An ascent along an average of gradients, 0.8 old and 0.2 new, as in VaSSO.
    rho, theta, w = 0.1, 0.2, np.array([1.0, 1.0])
    ascent = optax.chain(optax.ema(1 - theta, debias=False), sam_ascent(rho))
    loss = problems.quadratic(np.diag([1.0, 3.0]))
    tx = optax.chain(sam_jax.sharpness_aware(ascent), optax.sgd(0.1))
    average = np.zeros(2)
    for seen in problems.trajectory(tx, loss, jnp.ones(2), steps=5):
        g = np.array([1.0, 3.0]) * w
        average = (1 - theta) * average + theta * g
        moved = w + rho * average / np.linalg.norm(average)
        w = w - 0.1 * np.array([1.0, 3.0]) * moved
        np.testing.assert_allclose(seen, w, rtol=1e-6)


def test_the_ascent_sees_the_params_and_every_keyword():
    seen = {}

    def update(updates, state, params=None, **keywords):
        seen.update(keywords, params=params)
        return updates, state

    ascent = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    params = problems.network()
    one_update(sam_jax.sharpness_aware(ascent), params, value=3.0, batch="batch")
    assert seen.keys() == {
        *("params", "value", "batch", "grad_fn", "value_and_grad_fn")
    }
    assert seen["params"] is params and seen["value"] == 3.0


def test_combine_gets_both_gradients_and_the_count():
    # GSAM's direction: the perturbed gradient less alpha times the part of the gradient
    # that is orthogonal to it. On diag(1, 3) at (1, 1) with rho = sqrt(10) / 10:
    #     g = (1, 3), e = (0.1, 0.3), g_p = (1.1, 3.9),
    #     orthogonal part of g = g - (g.g_p / |g_p|^2) g_p.
    alpha, counts = 0.5, []

    def combine(grads, perturbed_grads, count):
        counts.append(int(count))
        along = (grads @ perturbed_grads) / (perturbed_grads @ perturbed_grads)
        return perturbed_grads - alpha * (grads - along * perturbed_grads)

    g, g_p = np.array([1.0, 3.0]), np.array([1.1, 3.9])
    expected = g_p - alpha * (g - (g @ g_p) / (g_p @ g_p) * g_p)

    tx = sam_jax.sharpness_aware(sam_ascent(10**0.5 / 10), combine)
    loss, params = problems.quadratic(np.diag([1.0, 3.0])), jnp.ones(2)
    state = tx.init(params)
    for _ in range(3):
        call = problems.gradients(loss)
        direction, state = tx.update(call["grad_fn"](params), state, params, **call)
        np.testing.assert_allclose(direction, expected, rtol=1e-6)
    assert counts == [0, 1, 2]
    assert state.count == 3 and state.count.dtype == jnp.int32


def test_the_caller_alone_computes_the_first_gradient():
    # The direction depends on `updates` as they come, not on grad_fn at the weights.
    params = jnp.zeros(2)
    tx = sam_jax.sharpness_aware(sam_jax.scale(1.0))
    given = jnp.array([5.0, -7.0])
    direction, _ = tx.update(given, tx.init(params), params, grad_fn=lambda w: w)
    np.testing.assert_array_equal(direction, given)


# ── The second gradient ──────────────────────────────────────────────────────────────


def test_params_keep_their_dtype_under_a_wider_displacement():
    params = jnp.ones(2, jnp.bfloat16)
    tx, grads = sam_jax.sam(0.5), jnp.array([3.0, 4.0], jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # bfloat16 weights, float32 gradients
        perturbed = problems.perturbed_params(tx, grads, tx.init(params), params)
    assert perturbed.dtype == jnp.bfloat16
    np.testing.assert_array_equal(perturbed, jnp.array([1.3, 1.4], jnp.bfloat16))


def test_value_and_grad_fn_is_enough_and_preferred():
    tx, params = sam_jax.sam(0.1), problems.network()
    call = problems.gradients(problems.network_loss, problems.batch())
    grads = call["grad_fn"](params)

    def forbidden(params):
        raise AssertionError("grad_fn is not needed")

    direction, state = tx.update(
        grads, tx.init(params), params, **{**call, "grad_fn": forbidden}
    )
    del call["grad_fn"]
    alone, _ = tx.update(grads, tx.init(params), params, **call)
    assert_close(direction, alone, rtol=0)
    assert np.isfinite(sam_jax.diagnostics(state)["perturbed_loss"])


@pytest.mark.parametrize(
    "returned, message",
    [
        (
            {"a": jnp.ones(2), "b": {"c": jnp.ones(3), "d": jnp.ones([])}},
            r"at \"\['b'\]\['c'\]\" params have shape \(4,\), .* has shape \(3,\)",
        ),
        (
            {"a": jnp.ones(2), "b": {"c": jnp.ones(4)}},
            r"at \"\['b'\]\['d'\]\" params have shape \(\), .* has nothing",
        ),
        (
            {"a": jnp.ones(2), "b": {"c": jnp.ones(4), "d": jnp.ones([])}, "e": 1.0},
            r"at \"\['e'\]\" params have nothing, .* has shape \(\)",
        ),
        (jnp.ones(2), r"at \"\['a'\]\" params have shape \(2,\), .* has nothing"),
    ],
    ids=["shape", "missing", "surplus", "no tree"],
)
def test_a_wrong_tree_names_the_first_leaf_that_differs(returned, message):
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(4), "d": jnp.ones([])}}
    tx = sam_jax.sam(0.1)
    with pytest.raises(ValueError, match=rf"^grad_fn\(params\) must return.*{message}"):
        tx.update(params, tx.init(params), params, grad_fn=lambda _: returned)


def test_other_containers_with_the_same_paths_are_named():
    params = {"p": [jnp.ones(1), jnp.ones(2)]}
    tx = sam_jax.sam(0.1)
    with pytest.raises(ValueError, match=r"other containers: .*\(\*, \*\).*\[\*, \*\]"):
        tx.update(
            params, tx.init(params), params, grad_fn=lambda w: {"p": tuple(w["p"])}
        )


def test_variables_of_nnx_are_named_with_what_makes_them_arrays():
    params, tx = {"w": jnp.ones(2)}, sam_jax.sam(0.1)
    grads = nnx.State({"w": nnx.Param(jnp.ones(2))})
    with pytest.raises(ValueError, match=r"in a Param of NNX: return nnx.as_pure"):
        tx.update(params, tx.init(params), params, grad_fn=lambda _: grads)
    in_optimizer = jax.tree.map(nnx.Variable, tx.init(params))
    seen = sam_jax.diagnostics(in_optimizer).values()
    assert all(isinstance(number, jax.Array) for number in seen)


def test_a_failing_function_keeps_its_error_and_is_told_what_it_was_given():
    params = {"w": jnp.ones(2)}
    tx = sam_jax.sam(0.1)
    with pytest.raises(KeyError, match="model") as failed:
        tx.update(params, tx.init(params), params, grad_fn=lambda w: w["model"])
    assert "a tree like the params of tx.update, a dict" in failed.value.__notes__[0]


# ── Diagnostics ──────────────────────────────────────────────────────────────────────


def test_diagnostics_are_found_in_any_state():
    direction = sam_jax.sam(0.1)
    nested = optax.chain(
        optax.identity(),
        optax.chain(optax.inject_hyperparams(sam_jax.sam)(rho=0.1), optax.sgd(0.1)),
    )
    for tx in (direction, nested, optax.apply_if_finite(direction, 3)):
        _, state = one_update(tx, problems.network())
        assert sam_jax.diagnostics(state)["perturbation_norm"] == pytest.approx(0.1)
    assert sam_jax.diagnostics(optax.adam(0.1).init(problems.network())) == {}


def test_diagnostics_are_zero_before_the_first_update():
    seen = sam_jax.diagnostics(sam_jax.sam(0.1).init(problems.network()))
    assert list(seen.values()) == [0, 0, 0, 0]


def test_shares_of_layers():
    params = {"net": {"a": [jnp.ones(2), jnp.ones(3)], "b": jnp.ones(4)}}
    grads = jax.tree.map(lambda w: 1e3 * w, params)
    for tx, expected in (
        (sam_jax.sam(0.1), [5 / 9, 4 / 9]),
        (sam_jax.sam(0.1, mask={"net": {"a": True, "b": False}}), [1, 0]),
        (sam_jax.sam(0.0), [0, 0]),
        (sam_jax.momentum_sam(0.1), [5 / 9, 4 / 9]),
    ):
        start = tx.init(params)
        _, state = tx.update(grads, start, params, grad_fn=lambda w: w)
        shares = sam_jax.perturbation_shares(state, params)
        assert list(shares) == ["a", "b"]
        np.testing.assert_allclose([*shares.values()], expected, rtol=1e-6)
        before = sam_jax.perturbation_shares(start, params)
        assert list(before.values()) == [0, 0]
    silent = sam_jax.without_diagnostics(sam_jax.sam(0.1)).init(params)
    assert sam_jax.perturbation_shares(silent, params) == {}
    assert sam_jax.perturbation_shares(optax.EmptyState(), params) == {}


def test_state_that_is_read_can_be_donated():
    # apply_if_finite reads the whole old state, in case it has to keep it.
    tx = optax.apply_if_finite(optax.chain(sam_jax.sam(0.1), optax.sgd(0.1)), 3)
    params = problems.network()
    step = problems.make_step(tx, problems.network_loss)
    after, _ = jax.jit(step, donate_argnums=(0, 1))(
        params, tx.init(params), problems.batch()
    )
    assert np.isfinite(after["bias"])


# ── with_grad_fn ─────────────────────────────────────────────────────────────────────


def quartic(params, batch, scale):
    return scale * jnp.sum((batch * params) ** 4)


def test_with_grad_fn_passes_the_keywords_in_the_signature():
    # The signature of jax.grad(f) is that of f.
    grad_fn, params = jax.grad(quartic), jnp.array([1.0, 2.0])
    keywords = {"batch": jnp.array([2.0, 1.0]), "scale": 0.5}
    tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
    bound = sam_jax.with_grad_fn(tx, grad_fn)
    grads = grad_fn(params, **keywords)
    ours, _ = bound.update(grads, bound.init(params), params, value=1.0, **keywords)
    theirs, _ = tx.update(
        grads, tx.init(params), params, grad_fn=functools.partial(grad_fn, **keywords)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_with_grad_fn_passes_everything_to_open_keywords():
    seen = {}

    def grad_fn(params, **keywords):
        seen.update(keywords)
        return params

    params = jnp.ones(2)
    tx = sam_jax.with_grad_fn(sam_jax.sam(0.1), grad_fn)
    tx.update(params, tx.init(params), params, value=1.0, batch=2.0)
    assert seen == {"value": 1.0, "batch": 2.0}


def test_with_grad_fn_does_not_take_a_keyword_for_the_weights():
    # A keyword named like the first parameter, which is given by position.
    tx = sam_jax.with_grad_fn(sam_jax.sam(0.1), lambda weights, scale: weights * scale)
    params = jnp.array([3.0, 4.0])
    direction, _ = tx.update(params, tx.init(params), params, weights=None, scale=2.0)
    np.testing.assert_allclose(direction, [6.12, 8.16], rtol=1e-6)


def test_with_grad_fn_binds_a_plain_optimizer_as_well():
    tx = sam_jax.with_grad_fn(optax.sgd(0.5), lambda weights, batch: weights)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), batch=1)
    np.testing.assert_array_equal(updates, [-0.5, -0.5])


# ── Devices ──────────────────────────────────────────────────────────────────────────


def m_sam_by_a_loop(params, batch, groups, rho, rate, steps):
    """SAM in NumPy's order: a perturbation per group, the mean of their gradients."""
    grad = jax.jit(jax.grad(problems.network_loss))
    for _ in range(steps):
        directions = []
        for group in range(groups):
            part = tuple(jnp.split(x, groups)[group] for x in batch)
            g = grad(params, part)
            norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(g)))
            moved = jax.tree.map(lambda w, g, norm=norm: w + rho * g / norm, params, g)
            directions.append(grad(moved, part))
        mean = jax.tree.map(lambda *leaves: sum(leaves) / groups, *directions)
        params = jax.tree.map(lambda w, d: w - rate * d, params, mean)
    return params


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per device"])
def test_the_place_of_pmean_decides_who_shares_a_perturbation(shared, check_vma):
    mesh = jax.make_mesh((4,), ("data",))
    before = [sam_jax.pmean("data")] if shared else []
    tx = optax.chain(*before, sam_jax.sam(0.2), sam_jax.pmean("data"), optax.sgd(0.1))
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)

    def step(params, state, batch):
        # The gradients are to be this device's own; without the mark they are summed.
        local = jax.lax.pcast(params, "data", to="varying") if check_vma else params
        grad_fn = lambda p: jax.grad(problems.network_loss)(p, batch)  # noqa: E731
        updates, state = tx.update(grad_fn(local), state, local, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    replicated = P()
    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(replicated, replicated, P("data")),
            out_specs=(replicated, replicated),
            check_vma=check_vma,
        )
    )
    whole, split = NamedSharding(mesh, replicated), NamedSharding(mesh, P("data"))
    ours, state = jax.device_put((params, tx.init(params)), whole)
    for _ in range(3):
        ours, state = mapped(ours, state, jax.device_put(batch, split))
    if shared:
        expected = m_sam_by_a_loop(params, batch, 1, 0.2, 0.1, 3)
    else:
        expected = m_sam_by_a_loop(params, batch, 4, 0.2, 0.1, 3)
    assert_close(ours, expected, rtol=1e-12)
    # The two algorithms are told apart by this problem.
    other = m_sam_by_a_loop(params, batch, 4 if shared else 1, 0.2, 0.1, 3)
    assert np.abs(ours["kernel"] - other["kernel"]).max() > 1e-4
    seen = sam_jax.diagnostics(state)
    assert seen["perturbation_norm"] == pytest.approx(0.2)


@pytest.mark.usefixtures("float64")
def test_norms_run_over_all_shards_of_sharded_params():
    # A mesh with explicit axes, JAX's default, and parameters split over it.
    mesh = jax.make_mesh((4,), ("data",))
    params = {"kernel": jnp.arange(1.0, 9.0), "bias": jnp.ones([])}
    shardings = {
        "kernel": NamedSharding(mesh, P("data")),
        "bias": NamedSharding(mesh, P()),
    }

    def loss(params):
        return jnp.sum(jnp.log1p(params["kernel"] ** 2)) * params["bias"] ** 2

    def after(params):
        tx = optax.chain(sam_jax.sam(0.3), optax.sgd(0.05))
        return problems.trajectory(tx, loss, params, steps=3)

    split = after(jax.device_put(params, shardings))
    assert len(split[-1]["kernel"].addressable_shards[0].data) == 2
    assert_close(split, after(params), rtol=1e-13)


# ── Names ────────────────────────────────────────────────────────────────────────────


def test_shared_files_are_no_methods():
    assert {"sam", "usam", "unified_sam"} <= set(methods.names())
    assert not {"core", "ascent", "checks", "numerics"} & set(methods.names())
    assert list(methods.names()) == sorted(methods.names())


@pytest.mark.parametrize("name", ["core", "vaso", "", "sam.sam", "../sam"])
def test_unknown_names_have_no_factory(name):
    with pytest.raises(KeyError):
        methods.factory(name)


def test_a_mask_may_be_a_prefix_of_the_params():
    params = {"a": {"w": jnp.ones(2), "b": jnp.ones([])}, "c": jnp.ones(3)}
    tx = sam_jax.sam(0.1, mask={"a": True, "c": False})
    perturbed = problems.perturbed_params(tx, params, tx.init(params), params)
    assert (perturbed["a"]["w"] > 1).all() and perturbed["a"]["b"] > 1
    np.testing.assert_array_equal(perturbed["c"], params["c"])
