"""How schedules behave for k to infinity: orders of families, sums, products."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import schedules
from sam_jax.theory import families, orders

FAMILIES = [
    families.Constant(0.3),
    families.Power(0.5, 0.5001),
    families.Power(2.0, 1, steps=7),
    families.Power(0.1, 0.001),
    families.PowerLog(0.1),
    families.PowerLog(0.1, 0.5, 2.0, steps=3, period=1),
    families.PerfectSquares(0.2, 0.4),
    families.Cosine(0.1, 1000),
    families.Cosine(0.1, 1000, 0.02),
    families.Linear(0.1, 1000),
    families.StepDecay(0.1, (100, 200), 0.2),
    families.CosineRestarts(0.1, 50),
    families.WarmUp(10, families.Power(0.1, 1)),
    families.PLStep(0.5, 0.1),
    families.PLRadius(0.1),
    families.Following(families.Cosine(0.1, 500), 0.2, 500, 0.05),
]


def term_values(term, k):
    values = k ** -float(term.power) * np.log(k) ** -float(term.log)
    on = np.round(k ** (1 / term.spacing)) ** term.spacing == k
    return np.where(on, values, 0.0)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_order_is_that_of_the_schedule(family):
    # Squares and their neighbours, at two scales far from each other.
    roots = np.array([100.0, 1000.0, 10_000.0, 30_000.0])
    k = np.sort(np.r_[roots**2, roots**2 + 17])
    values = np.asarray(jax.vmap(family.schedule())(jnp.asarray(k - 1, int)))
    order = sum((term_values(t, k) for t in family.order.terms), np.zeros(len(k)))
    assert ((values > 1e-15) == (order > 0)).all()
    if family.order.terms:
        # Up to a constant: a wrong exponent of 0.1 would give 3 over these scales.
        ratios = values / order
        periodic = isinstance(family, families.CosineRestarts)
        assert ratios.max() / ratios.min() < (np.inf if periodic else 1.35)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_largest_values(family):
    values = np.asarray(jax.vmap(family.schedule())(jnp.arange(4000)))
    assert values.max() == pytest.approx(family.supremum, rel=1e-9)
    late = np.asarray(jax.vmap(family.schedule())(jnp.arange(90_000, 91_000)))
    if family.vanishes:
        assert family.limsup == 0
    else:
        assert late.max() == pytest.approx(family.limsup, rel=1e-9)


def test_diminish_3_is_that_of_the_schedules():
    ours = families.PowerLog(0.1, steps=7).schedule()
    for count in (0, 6, 7, 28, 500):
        assert float(ours(count)) == pytest.approx(
            float(schedules.log_decay(0.1, 7)(count))
        )


@pytest.mark.parametrize("power", ["0.4999", "0.5", "0.9", "1", "1.0001", "2"])
@pytest.mark.parametrize("log", [0, 1, 2])
@pytest.mark.parametrize("spacing", [1, 2])
def test_summable_agrees_with_condensation(power, log, spacing):
    # Of k = j^s: sum over j of g(j), g falling, converges with that of 2^i g(2^i) =
    # 2^(i(1 - s a)) i^-b, a geometric series times a power.
    term = orders.Term(Fraction(power), Fraction(log), spacing)
    ratio = 1 - spacing * Fraction(power)
    expected = ratio < 0 or (ratio == 0 and log >= 2)
    assert orders.Order(frozenset({term})).summable == expected


def test_exponents_are_exact():
    # In floating point 0.1 + 0.7 + 0.2 is below 1.
    three = [orders.power_order(x) for x in (0.1, 0.7, 0.2)]
    product = three[0] * three[1] * three[2]
    assert not product.summable
    assert (product * orders.power_order(1e-12)).summable


@pytest.mark.parametrize("power, log", [(1.5, 0), (2, 1), (1, 3), (1, 2)])
def test_tails(power, log):
    order = orders.power_order(power, log)
    [tail] = order.tail().terms
    j = np.arange(2, 4_000_000, dtype=float)
    k = np.array([1000.0, 30_000.0])
    values = j**-power * np.log(j) ** -log
    # What lies beyond the last j, by the integral of j^-1 (log j)^-b or j^-a.
    beyond = (
        np.log(j[-1]) ** (1 - log) / (log - 1)
        if power == 1
        else j[-1] ** (1 - power) * np.log(j[-1]) ** -log / (power - 1)
    )
    sums = np.array([values[int(n) - 2 :].sum() + beyond for n in k])
    ratios = sums / term_values(tail, k)
    assert ratios[1] == pytest.approx(ratios[0], rel=0.05)
    with pytest.raises(ValueError, match="infinite"):
        orders.power_order(1).tail()


def test_orders_multiply_over_the_k_where_both_are_large():
    squares = families.PerfectSquares(1.0, 2).order
    products = list(itertools.product(squares.terms, squares.terms))
    assert (squares * squares).terms == {
        orders.Term(a.power + b.power, a.log + b.log, max(a.spacing, b.spacing))
        for a, b in products
    }
    assert not (squares * squares).summable
    assert (squares * orders.power_order(0.6)).summable
