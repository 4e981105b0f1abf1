"""Promises about the coefficients of a method: numbers, schedules, radius, mask."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax.testing import problems
from sam_jax.testing.method import Method, assert_close, assert_equal, refusal


def bad_coefficients_are_refused(tested: Method) -> None:
    """A coefficient that is not a number >= 0 is a ValueError that names it, at once.

    `sam_jax.checks` has such tests. ``any_value=`` names those that may be negative.
    """
    for value in (-1, float("nan"), float("inf"), "?", [0.1]):
        for key in sorted(tested.numeric() - tested.traits.any_value):
            said = refusal(functools.partial(tested.optimizer, **{key: value}))
            assert f"{key} must be " in said, f"of {key}={value!r} it says {said!r}"


def schedules_are_read_at_every_count(tested: Method) -> None:
    """A coefficient that is a number or a schedule is read at 0, 1, 2, ..."""
    tested.run(3)
    for key in tested.schedulable():
        counts = set(tested.step.seen[key])
        assert counts == {0, 1, 2}, f"{key} was read at {counts or 'no count'}"


def unjitted(tx: optax.GradientTransformationExtraArgs, steps: int) -> list[Any]:
    """Parameters after each of some updates, without a compilation."""
    with jax.disable_jit():
        args = (problems.network_loss, problems.network(), (problems.batch(),), steps)
        return problems.trajectory(tx, *args)


def numbers_are_constant_schedules(tested: Method) -> None:
    """A number does what a constant schedule does."""
    numbers, radius = tested.schedulable(), tested.traits.radius
    if tested.has_radius:
        numbers = {radius: 0.05} | numbers
    carry = tested.start()
    for params in unjitted(tested.optimizer(**numbers), 2):
        carry = tested.run(1, carry, rho=numbers.get(radius, 0.05))
        assert_close(params, carry[0], rtol=1e-6)


@functools.cache
def _base_run(base: Callable[[float], Any]) -> list[Any]:
    """The trajectory of a base, shared by the methods over it."""
    args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
    return problems.trajectory(base(0.1), *args)


def radius_zero_is_the_base(tested: Method) -> None:
    """With radius zero it is the base optimizer.

    ``base=None`` if it recombines gradients so that none is left; ``exact=False`` if
    only up to rounding.
    """
    base, at_base, exact, *_ = tested.traits
    if base is None or not tested.has_radius:
        return
    if at_base:
        tx = tested.optimizer(**{tested.traits.radius: 0.0, **at_base})
        args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
        told = {"evaluated": tested.eval_params} if tested.eval_params else {}
        ours = problems.trajectory(tx, *args, **told)
    else:
        carry, ours = tested.start(), []
        for _ in range(5):
            carry = tested.run(1, carry, rho=0.0)
            ours.append(jax.tree.map(jnp.copy, carry[0]))  # the carry is donated
    if exact:
        assert_equal(ours, _base_run(base))
    else:
        assert_close(ours, _base_run(base), rtol=1e-5)


def radius_is_felt(tested: Method) -> None:
    """Another radius is another update."""
    if not tested.has_radius:
        return
    near, far = (tested.run(2, rho=rho)[0] for rho in (0.0, 0.5))
    differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), near, far)
    assert max(jax.tree.leaves(differences)) > 1e-3


def mask_keeps_the_others(tested: Method) -> None:
    """It takes a gradient at perturbed weights, of which a mask keeps the others.

    ``perturbed_call=0`` if the first gradient that it takes is the one, and it looks
    elsewhere afterwards; ``pair=False`` if it takes none.
    """
    if not tested.traits.pair:
        return
    params, grads = problems.network(), problems.network()
    # A method that takes a step first leaves the weights where they are.
    numbers = {"learning_rate": 0.0}
    numbers |= {tested.traits.radius: 0.1} if tested.has_radius else {}
    kept = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    masks: list[Any] = [None]
    if "mask" in tested.parameters:
        masks += [kept, lambda tree: jax.tree.map(lambda _: _, kept)]
    for mask in masks:
        tx = tested.optimizer(**numbers, **({} if mask is None else {"mask": mask}))
        points = problems.points(tx, grads, tx.init(params), params)
        assert points, "the update takes no gradient itself: pair=False"
        perturbed = points[tested.traits.perturbed_call]
        moved = jax.tree.map(lambda x, y: bool((x != y).any()), perturbed, params)
        assert any(jax.tree.leaves(moved)) if mask is None else moved == kept, (
            f"the gradient {tested.traits.perturbed_call} of those that the update "
            f"takes is at weights of which these have moved: {moved}; where another "
            "one is at the perturbed weights, perturbed_call=0 says so"
        )


CHECKS: tuple[Callable[[Method], None], ...] = (
    bad_coefficients_are_refused,
    schedules_are_read_at_every_count,
    numbers_are_constant_schedules,
    radius_zero_is_the_base,
    radius_is_felt,
    mask_keeps_the_others,
)
