"""Step sizes, radii and mixing weights of the papers, as Optax schedules.

A schedule is a function of the update count, from 0. The papers count steps (or
epochs) from 1: with ``n = count // transition_steps + 1``, ``transition_steps`` is 1
for a formula per step, or the number of updates in an epoch for one per epoch.
Constant, cosine, linear and piecewise ones are Optax's own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks


def one_over_t() -> optax.Schedule:
    r"""The weight :math:`\lambda_t = 1/t`, t from 1 (Oikonomou and Loizou 2025).

    Example:
        >>> print([round(float(one_over_t()(count)), 2) for count in range(4)])
        [1.0, 0.5, 0.33, 0.25]
    """
    return power_decay(1.0, 1.0)


def one_minus_one_over_t() -> optax.Schedule:
    r"""The weight :math:`\lambda_t = 1 - 1/t`, t from 1 (Oikonomou and Loizou 2025).

    Example:
        >>> schedule = one_minus_one_over_t()
        >>> print([round(float(schedule(count)), 2) for count in range(4)])
        [0.0, 0.5, 0.67, 0.75]
    """
    decay = one_over_t()
    return lambda count: 1 - jnp.asarray(decay(count))


def power_decay(
    init_value: float, exponent: float, transition_steps: int = 1
) -> optax.Schedule:
    r"""The diminishing value :math:`\eta / n^p`, n from 1.

    As a step size with p = 1 and 0.5001 these are "Diminish 1" and "Diminish 2" of
    Khanh et al. 2024, section 5 (per epoch there). As a radius, ``power_decay(C, p)``
    is :math:`\rho_k = C / k^p` of Corollary 3.5; p = 0.001 is the "almost constant"
    radius of Remark 3.6.

    Args:
        init_value: :math:`\eta`, the value at n = 1; finite, >= 0.
        exponent: p, >= 0.
        transition_steps: updates for which n stays the same, >= 1.

    Returns:
        A schedule of the update count.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> schedule = power_decay(0.1, 0.5, transition_steps=10)
        >>> print([round(float(schedule(count)), 4) for count in (0, 9, 10, 30)])
        [0.1, 0.1, 0.0707, 0.05]
    """
    _check(init_value, exponent, transition_steps)
    return _of_n(lambda n: init_value / n**exponent, transition_steps)


def power_decay_released(
    init_value: float, exponent: float, transition_steps: int = 1
) -> optax.Schedule:
    r"""`power_decay` one n late: :math:`\eta`, then :math:`\eta / n^p`, n from 1.

    With p = 0.5001 it is "Diminish 2" as the authors' code of Khanh et al. 2024 runs
    it: the first epoch keeps :math:`\eta`, and epoch e, from 0, has
    :math:`\eta / e^p`. The arguments are those of `power_decay`.

    Example:
        >>> schedule = power_decay_released(0.1, 0.5001)
        >>> print([round(float(schedule(count)), 4) for count in (0, 1, 2, 3)])
        [0.1, 0.1, 0.0707, 0.0577]
    """
    _check(init_value, exponent, transition_steps)
    return _of_n(
        lambda n: init_value / jnp.maximum(n - 1, 1) ** exponent, transition_steps
    )


def perfect_squares(
    init_value: float, exponent: float, transition_steps: int = 1
) -> optax.Schedule:
    r"""C where n is a perfect square, else :math:`C / n^p`, n from 1.

    A radius that does not tend to 0 although :math:`\sum_k t_k \rho_k < \infty` for
    :math:`t_k = 1/k` (Khanh et al. 2024, Remark G.2): Corollary 3.5 needs the sum, not
    the limit.

    Args:
        init_value: C, the value at every square; finite, >= 0.
        exponent: p, >= 0.
        transition_steps: updates for which n stays the same, >= 1.

    Returns:
        A schedule of the update count.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> schedule = perfect_squares(1.0, 1.0)
        >>> print([round(float(schedule(count)), 3) for count in (0, 1, 2, 3, 4)])
        [1.0, 0.5, 0.333, 1.0, 0.2]
    """
    _check(init_value, exponent, transition_steps)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        n = _index(count, transition_steps)
        # Rounded and squared as n's own type: a float32 root is near enough to find the
        # integer one, but is itself not exact.
        root = jnp.round(jnp.sqrt(n.astype(float))).astype(n.dtype)
        decayed = init_value / n.astype(float) ** exponent
        return jnp.where(root * root == n, init_value, decayed)

    return schedule


def log_decay(
    init_value: float, transition_steps: int = 1, period: int = 5
) -> optax.Schedule:
    r"""The diminishing value :math:`\eta / (m \log m)`, :math:`m=\lfloor n/5\rfloor+2`.

    "Diminish 3" of Khanh et al. 2024, section 5 (per epoch there), natural logarithm, n
    from 1. This is the paper's formula; `log_decay_released` is what its authors ran.

    Args:
        init_value: :math:`\eta`; finite, >= 0. The first value is 0.721 times it.
        transition_steps: updates for which n stays the same, >= 1.
        period: number of n for which m stays the same (5 in the paper), >= 1.

    Returns:
        A schedule of the update count.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> schedule = log_decay(0.1)
        >>> print([round(float(schedule(count)), 4) for count in (0, 3, 4, 9)])
        [0.0721, 0.0721, 0.0303, 0.018]
    """
    _check(init_value, 0, transition_steps, period)

    def decay(n: jax.Array) -> jax.Array:
        m = jnp.floor(n / period) + 2
        return init_value / (m * jnp.log(m))

    return _of_n(decay, transition_steps)


def log_decay_released(
    init_value: float, transition_steps: int = 1, period: int = 5
) -> optax.Schedule:
    r"""`log_decay` as it was run: :math:`\eta`, then from m = 3 on.

    "Diminish 3" as the authors' code of Khanh et al. 2024 runs it: the first epoch
    keeps :math:`\eta`; epoch e, from 0, has :math:`m = \lfloor (e-1)/5 \rfloor + 3`.
    The arguments are those of `log_decay`.

    Example:
        >>> schedule = log_decay_released(0.1)
        >>> print([round(float(schedule(count)), 4) for count in (0, 1, 5, 6)])
        [0.1, 0.0303, 0.0303, 0.018]
    """
    _check(init_value, 0, transition_steps, period)

    def decay(n: jax.Array) -> jax.Array:
        m = jnp.floor((n - 2) / period) + 3
        return jnp.where(n == 1, init_value, init_value / (m * jnp.log(m)))

    return _of_n(decay, transition_steps)


def tied_to(
    learning_rate: optax.Schedule,
    low: float,
    high: float,
    *,
    lr_min: float,
    lr_max: float,
) -> optax.Schedule:
    r"""A coefficient that follows the learning rate, as GSAM's radius.

    .. math::

        \rho_t = \rho_{\min} + (\rho_{\max} - \rho_{\min})\,
        \frac{\eta_t - \eta_{\min}}{\eta_{\max} - \eta_{\min}}

    Where the learning rate leaves its interval, as in a warm-up from 0, the coefficient
    stays at the nearer end; the authors' code extrapolates.

    Args:
        learning_rate: the schedule to follow.
        low: the coefficient where the learning rate is ``lr_min``; finite, >= 0.
        high: the coefficient where it is ``lr_max``; finite, >= ``low``.
        lr_min: lowest learning rate, the schedule's end; finite, >= 0.
        lr_max: highest learning rate, the schedule's peak; finite, > ``lr_min``.

    Returns:
        A schedule of the update count.

    Raises:
        ValueError: if ``learning_rate`` is not a schedule or a bound outside its range.

    Example:
        >>> import optax
        >>> learning_rate = optax.linear_schedule(0.1, 0.0, 10)
        >>> rho = tied_to(learning_rate, 0.02, 0.1, lr_min=0.0, lr_max=0.1)
        >>> print([round(float(rho(count)), 3) for count in (0, 5, 10)])
        [0.1, 0.06, 0.02]

    References:
        Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training",
        ICLR 2022, `2203.08065 <https://arxiv.org/abs/2203.08065>`_
    """
    if not callable(learning_rate):
        raise checks.BadValue(
            f"learning_rate must be a schedule, got {learning_rate!r}"
        )
    for name, bound in dict(low=low, high=high, lr_min=lr_min, lr_max=lr_max).items():
        checks.nonnegative(name, bound)
    if high < low:
        raise checks.BadValue(f"high must be >= low, got {high!r} < {low!r}")
    if lr_max <= lr_min:
        raise checks.BadValue(f"lr_max must be > lr_min, got {lr_max!r} <= {lr_min!r}")

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        rate = jnp.asarray(learning_rate(count)).astype(float)
        share = jnp.clip((rate - lr_min) / (lr_max - lr_min), 0, 1)
        return low + (high - low) * share

    return schedule


def _index(count: jax.typing.ArrayLike, transition_steps: int) -> jax.Array:
    return jnp.asarray(count) // transition_steps + 1


def _of_n(
    formula: Callable[[jax.Array], jax.Array], transition_steps: int
) -> optax.Schedule:
    return lambda count: formula(_index(count, transition_steps).astype(float))


def _check(
    init_value: float, exponent: float, transition_steps: int, period: int = 1
) -> None:
    checks.nonnegative("init_value", init_value)
    checks.nonnegative("exponent", exponent)
    checks.integer("transition_steps", transition_steps, 1)
    checks.integer("period", period, 1)
