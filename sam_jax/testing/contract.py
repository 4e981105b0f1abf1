"""What every method of the library keeps to, a function for each promise."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import observations
from sam_jax.testing import coefficients, devices, method, problems
from sam_jax.testing.method import (
    Method,
    assert_close,
    assert_equal,
    assert_finite,
    refusal,
    signature_of,
    to_numpy,
)


def check_method(
    tx: Callable[..., optax.GradientTransformation] | optax.GradientTransformation,
    *,
    eval_params: Callable[..., optax.Params] | None = None,
    **traits: Any,
) -> None:
    """Runs the contract of the library on your own method.

    Args:
        tx: the factory; or a transformation, whose coefficients are not tried then.
        eval_params: ``(state, params) -> params``, if it trains others than those to
            evaluate.
        **traits: how it differs from the usual method; see `Traits`.

    Raises:
        AssertionError: naming every promise that is not kept, and what was seen.

    Example:
        >>> import optax, sam_jax
        >>> def my_sam(rho: optax.ScalarOrSchedule = 0.05):
        ...     ascent = optax.chain(sam_jax.normalize(), sam_jax.scale(rho))
        ...     return sam_jax.sharpness_aware(ascent)
        >>> check_method(my_sam)
    """
    tested = Method(tx, method.Traits(**traits), eval_params)
    broken = []
    for check in CHECKS:
        try:
            check(tested)
        except AssertionError as error:
            broken.append(f"{check.__name__}: {_promise(check)}\n{_indented(error)}")
        except Exception as error:  # its traceback is the best there is
            error.add_note(f"in {check.__name__}: {_promise(check)}")
            raise
    if broken:
        message = f"{tested.name} does not keep {len(broken)} of {len(CHECKS)} promises"
        raise AssertionError("\n\n".join([f"{message} of a method:", *broken]))


def _promise(check: Callable[[Method], None]) -> str:
    return str(check.__doc__).partition("\n")[0]


def _indented(error: AssertionError) -> str:
    lines = (str(error) or "it does not").strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[:12])


def _call(params: Any) -> dict[str, Any]:
    return problems.keywords(problems.network_loss, params, problems.batch())


@jax.jit
def gradient_at(params: Any) -> Any:
    """The network's gradient, of the first batch."""
    return jax.grad(problems.network_loss)(params, problems.batch())


# ── How it is called ─────────────────────────────────────────────────────────────────


def unknown_keywords_change_nothing(tested: Method) -> None:
    """The update ignores keywords that it does not know, and holds no caller's array.

    A state that held the caller's arrays would forbid to donate them.
    """
    tx, params = tested.optimizer(), problems.network()
    state, call = tx.init(params), _call(params)

    def program(**extra: Any) -> Any:
        def update(grads: Any, params: Any, state: Any) -> Any:
            return tx.update(grads, state, params, **call, **extra)[::-1]

        return jax.make_jaxpr(update, return_shape=True)(params, params, state)

    plain, (kept, _) = program()
    with_extra, _ = program(anything=object())
    assert str(with_extra) == str(plain), "another program with anything=object()"
    theirs = plain.jaxpr.invars[: 2 * len(jax.tree.leaves(params))]
    held = plain.jaxpr.outvars[: len(jax.tree.leaves(kept))]
    shared = {id(v) for v in theirs} & {id(v) for v in held}
    assert not shared, "the state holds arrays of params or updates: copy them"


def missing_arguments_are_named(tested: Method) -> None:
    """An argument that a call lacks is named in a ValueError.

    `sam_jax.sharpness_aware` does so. ``needs=`` says what a method asks for.
    """
    tx, params = tested.optimizer(), problems.network()
    for missing in tested.traits.needs:
        arguments = {"params": params, **_call(params)}
        del arguments[missing]
        if missing == "grad_fn":  # either of the two will do
            del arguments["value_and_grad_fn"]
        update = functools.partial(tx.update, params, tx.init(params), **arguments)
        said = refusal(update)
        assert said.startswith(f"{missing} is missing"), (
            f"without {missing} it says {said!r}, not '{missing} is missing: ...'"
        )


# ── What it keeps ────────────────────────────────────────────────────────────────────


def init_is_abstract(tested: Method) -> None:
    """Init gives the same shapes and dtypes under `jax.eval_shape`."""
    tx, params = tested.optimizer(), problems.network()
    abstract = jax.eval_shape(tx.init, params)
    assert signature_of(tx.init(params)) == signature_of(abstract)


def types_stay(tested: Method) -> None:
    """Structure, shapes and dtypes of state and updates stay, in low precision too."""
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        tx, params = tested.optimizer(0.02), problems.network(dtype)
        state, batch = tx.init(params), problems.batch(dtype)

        def step(params: Any, state: Any, batch: Any, tx: Any = tx) -> Any:
            call = problems.keywords(problems.network_loss, params, batch)
            updates, state = tx.update(call["grad_fn"](params), state, params, **call)
            return optax.apply_updates(params, updates), state, updates

        # Of weak types as well, so that a second update does not compile again.
        after = jax.eval_shape(step, params, state, batch)
        expected = (params, state, params)
        _same_types(after, expected, f"after an update in {dtype.__name__}")
        again = jax.eval_shape(step, *after[:2], batch)
        assert again == after, "types of a second update"


def mixed_precision(
    tested: Method, of_functions: Any = jnp.float32
) -> tuple[Callable[..., Any], Any]:
    """An update of weights in bfloat16 with gradients in float32, and its state.

    The gradients of the update's functions may be of another dtype.
    """
    tx, params = tested.make(), problems.network()
    call = _call(params)
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    functions = {
        key: lambda weights, *args, f=f: optax.tree.cast(
            f(optax.tree.cast(weights, jnp.float32), *args), of_functions
        )
        for key, f in call.items()
        if key.endswith("_fn")
    }

    def update(state: Any) -> Any:
        grads = optax.tree.cast(functions["grad_fn"](low), jnp.float32)
        return tx.update(grads, state, low, **(call | functions))

    return update, tx.init(low)


def low_precision_weights_stay(tested: Method) -> None:
    """Weights in bfloat16 with gradients in float32 keep the types of the state.

    The direction is in float32 as well, also where the second gradient is not.
    """
    if tested.is_optimizer:  # its base decides
        return
    for dtype in (jnp.float32, jnp.bfloat16):
        update, state = mixed_precision(tested, dtype)
        with jax.numpy_dtype_promotion("standard"):
            direction, after = jax.eval_shape(update, state)
        _same_types(after, state, "the state after an update")
        _same_types(direction, problems.network(), "the direction")


def _same_types(after: Any, before: Any, what: str) -> None:
    found, expected = signature_of(after), signature_of(before)
    assert found == expected, f"{what}: {found}, instead of {expected}"


def donation_works(tested: Method) -> None:
    """Parameters and state can be donated together, and stay finite."""
    carry = tested.start()
    donated = jax.tree.leaves(carry)
    carry = tested.run(2, carry)
    assert all(leaf.is_deleted() for leaf in donated)
    assert_finite(carry[0])


def continues_from_saved_arrays(tested: Method) -> None:
    """From saved arrays it continues with the same bits."""

    def restore(saved: np.ndarray, like: Any) -> jax.Array:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                jnp.asarray(saved), impl=jax.random.key_impl(like)
            )
        return jnp.asarray(saved)

    leaves, structure = jax.tree.flatten(tested.run(3))
    saved = [np.array(to_numpy(leaf)) for leaf in leaves]
    restored = [restore(x, leaf) for x, leaf in zip(saved, leaves, strict=True)]
    continued = tested.run(3, structure.unflatten(restored))
    assert_equal(continued, tested.run(6))


def nothing_to_train(tested: Method) -> None:
    """An empty tree of parameters is not an error."""
    tx = tested.optimizer(base=optax.sgd)
    call = problems.keywords(lambda params: jnp.zeros([]), {})
    with jax.disable_jit():
        updates, _ = tx.update({}, tx.init({}), {}, **call)
    assert updates == {}


# ── Its numbers ──────────────────────────────────────────────────────────────────────


def descends(tested: Method) -> None:
    """Twenty updates lower the loss."""
    after, _ = tested.run(20, learning_rate=0.02)
    assert_finite(after)
    losses = [
        float(problems.network_loss(params, problems.batch()))
        for params in (problems.network(), after)
    ]
    assert losses[1] < losses[0], f"the loss goes from {losses[0]:g} to {losses[1]:g}"


# The inverse of the norm is not a normal number in float32; "unused" is known to be
# zero when the program is compiled.
HUGE = {jnp.float32: 5e37, jnp.float16: 6e4}


def extreme_gradients_give_finite_updates(tested: Method) -> None:
    """Zero and huge gradients give finite updates and diagnostics."""
    for dtype, huge in HUGE.items():
        _extreme(tested.make(), dtype, huge, diagnostics=tested.traits.diagnostics)


def _extreme(tx: Any, dtype: Any, huge: float, *, diagnostics: bool) -> None:
    params = {
        "matrix": jnp.ones((3, 2), dtype),
        "scalar": jnp.ones([], dtype),
        "empty": jnp.ones((0, 4), dtype),
        "unused": jnp.zeros([], dtype),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    large = {**params, "matrix": jnp.full((3, 2), huge, dtype)}

    @jax.jit
    def update(grads: Any, state: Any) -> Any:
        grads = grads | {"unused": jnp.zeros([], dtype)}
        return tx.update(
            grads,
            state,
            params,
            grad_fn=lambda params: grads,
            value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
            value=jnp.zeros([], dtype),
            num_examples=1000,
            example_losses=jnp.zeros(4, dtype),
            example_losses_fn=lambda params: jnp.zeros(4, dtype),
            subset_grad_fn=lambda params, rows: grads,
            functional_value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
            class_shares=jnp.full(4, 0.1, dtype),
            weighted_value_and_grad_fn=lambda params, _: (jnp.zeros([], dtype), grads),
        )

    state = tx.init(params)
    for grads in (zero, large, zero, params):
        updates, state = update(grads, state)
        assert_finite(updates)
        _same_types(updates, params, "updates")
    for _ in range(2):  # what it tells may be of the gradient of the update before
        _, state = update(large, state)
    if diagnostics:
        # The norm of the huge gradient is finite as well.
        seen = observations.diagnostics(state)
        assert "grad_norm" in seen, "there are none: diagnostics=False"
        assert_finite(seen)
        np.testing.assert_allclose(seen["grad_norm"], float(huge) * 6**0.5, rtol=1e-2)


def rate_zero_leaves_the_weights(tested: Method) -> None:
    """A learning rate of zero leaves the weights where they are."""
    params, state = tested.run(3, learning_rate=0.0)
    if tested.eval_params is None:
        assert_equal(params, problems.network())
    else:  # it holds other weights, and gives these back up to rounding
        evaluated = tested.eval_params(state, params)
        assert_close(evaluated, problems.network(), rtol=1e-6)


def diagnostics_are_of_the_update(tested: Method) -> None:
    """The diagnostics describe the update.

    ``unused_gradient=True`` if it works with a gradient of its own; ``pair=False`` if
    it has no second one; ``diagnostics=False`` if it has none.
    """
    if not tested.traits.diagnostics:
        return
    batch, pair = problems.batch(), tested.traits.pair
    params, state = tested.start()
    grads, clean, seen = params, None, {}
    for _ in range(2):
        grads = gradient_at(params)
        clean = problems.network_loss(params, batch)
        params, state = tested.run(1, (params, state), rho=0.1)
        seen = observations.diagnostics(state)
        assert "perturbation_norm" in seen, "there are none: diagnostics=False"
        if seen["perturbation_norm"] > 0:
            break  # else it takes one gradient, and perturbs for the next update
    assert tuple(seen) == observations.Diagnostics._fields[: 4 if pair else 2], [*seen]
    assert all(x.dtype == jnp.float32 and x.shape == () for x in seen.values())
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    same = np.isclose(seen["grad_norm"], np.linalg.norm(flat), rtol=1e-6)
    assert seen["grad_norm"] > 0
    assert same != tested.traits.unused_gradient, (
        f"grad_norm is {'' if same else 'not '}that of the caller's gradient, and the "
        f"traits say unused_gradient={tested.traits.unused_gradient}"
    )
    assert seen["perturbation_norm"] > 0
    if pair:
        assert -1 <= seen["gradient_cosine"] < 1
        assert seen["perturbed_loss"] != clean and np.isfinite(seen["perturbed_loss"])


CHECKS: tuple[Callable[[Method], None], ...] = (
    unknown_keywords_change_nothing,
    missing_arguments_are_named,
    init_is_abstract,
    types_stay,
    low_precision_weights_stay,
    donation_works,
    continues_from_saved_arrays,
    nothing_to_train,
    descends,
    extreme_gradients_give_finite_updates,
    rate_zero_leaves_the_weights,
    diagnostics_are_of_the_update,
    *coefficients.CHECKS,
    *devices.CHECKS,
)
