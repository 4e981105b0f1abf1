import itertools
from fractions import Fraction

import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.theory import conditions, finite_sums, orders, problems, sampling
from sam_jax.theory.families import (
    Constant,
    Cosine,
    CosineRestarts,
    PerfectSquares,
    PLRadius,
    PLStep,
    Power,
    PowerLog,
)
from sam_jax.theory.step_sizes import unified
from tests.theory import runs

# ── Khanh et al., the table of schedules ─────────────────────────────────────────────

DIMINISH_1, DIMINISH_2 = Power(0.1, 1), Power(0.1, 0.5001)
DIMINISH_3 = PowerLog(0.1)


@pytest.mark.parametrize(
    "step_size, infinite, squares, needed",
    [
        (DIMINISH_1, True, True, "0"),
        (DIMINISH_2, True, True, "0.4999"),
        (DIMINISH_3, True, True, "0"),
        (Constant(0.1), True, False, None),
        (Cosine(0.1, 100), False, True, None),
        (CosineRestarts(0.1, 100), True, False, None),
    ],
    ids=str,
)
def test_the_table_of_schedules(step_size, infinite, squares, needed):
    assert step_size.sum_diverges == infinite
    assert step_size.square_summable == squares
    for exponent in (0.001, 0.4999, 0.49991, 0.7):
        setting = nonconvex(step_size=step_size, radius=Power(0.1, exponent))
        expected = needed is not None and Fraction(str(exponent)) > Fraction(needed)
        assert (corollary_3_5(setting).applies is True) == expected
    constant = nonconvex(step_size=step_size, radius=Constant(0.05))
    assert corollary_3_5(constant).applies is False


def nonconvex(**others):
    known = {"smoothness": 1.0, "bounded_below": True, "convex": False, "pl": 0.0}
    return conditions.Setting(**(known | {"strong_convexity": 0.0} | others))


def run(rho, step_size):
    return {"step_size": Constant(step_size), "radius": Constant(rho)}


def verdict(setting, name):
    [found] = [v for v in conditions.assess(setting) if name in v.theorem.name]
    return found


def corollary_3_5(setting):
    return verdict(setting, "Corollary 3.5")


def test_perfect_squares_need_no_vanishing_radius():
    setting = nonconvex(step_size=DIMINISH_1, radius=PerfectSquares(1.99, 0.5))
    found = corollary_3_5(setting)
    assert found.applies and found.properties == {1, 2, 3}
    too_large = nonconvex(step_size=DIMINISH_1, radius=PerfectSquares(2.0, 0.5))
    [failure] = corollary_3_5(too_large).failures
    assert failure.reason == "limsup rho_k = 2 >= 2/L = 2"


@pytest.mark.parametrize(
    "exponent, q, expected", [(0.5, 0.5, True), (0.01, 0.01, True), (0.5, 0.0, False)]
)
def test_condition_9(exponent, q, expected):
    setting = nonconvex(
        step_size=Power(1.0, 1),
        radius=Power(0.1, exponent),
        kl_exponent=q,
    )
    found = corollary_3_5(setting)
    assert any("stay above" in text for text in found.follows) == expected
    # It says "if": e^-x has the property, and iterates that run away.
    assert found.properties == {1, 2, 3}


def test_condition_9_is_stronger_than_the_sum():
    # t = 1/k and eps = 1/(log k)^2: the tails fall as 1/log k, so that the outer sum is
    # that of 1/(k (log k)^q), infinite.
    order = orders.power_order(1) * orders.power_order(0, 2)
    outer = orders.power_order(1) * order.tail().root(Fraction(1, 2))
    assert order.summable and not outer.summable


@pytest.mark.parametrize(
    "change, condition",
    [
        ({"stochastic": True}, "full gradients"),
        ({"others": ("momentum 0.9",)}, "no momentum"),
        ({"step_size": Cosine(0.1, 100)}, "sum t_k = infinity"),
        ({"step_size": Constant(0.1)}, "t_k tends to 0"),
        ({"radius": Constant(0.05)}, "sum t_k rho_k"),
        ({"method": "usam"}, "within eps_k"),
        ({"bounded_below": False}, "inf f"),
        ({"smooth": False}, "Lipschitz"),
    ],
)
def test_every_condition_of_corollary_3_5_is_asked_for(change, condition):
    good = {"step_size": DIMINISH_1, "radius": Power(0.1, 0.001)}
    assert corollary_3_5(nonconvex(**good)).applies is True
    found = corollary_3_5(nonconvex(**(good | change)))
    assert found.applies is False and not found.follows and not found.properties
    assert any(condition in failure.text for failure in found.failures)


def test_what_is_not_known_is_neither_true_nor_false():
    setting = nonconvex(
        step_size=DIMINISH_1, radius=PerfectSquares(0.1, 1), smoothness=None
    )
    found = corollary_3_5(setting)
    assert found.applies is None and not found.failures and not found.follows
    assert [c.text for c in found.unknown] == [
        "the gradient is Lipschitz continuous",
        "limsup rho_k < 2/L",
    ]


# ── The other theorems ───────────────────────────────────────────────────────────────


def test_theorem_3_2_allows_a_constant_radius():
    problem = problems.quadratic([0.1, 1.0], [1.0, 1.0])
    radius = Constant(10.0)
    for step_size, expected in (
        (DIMINISH_2, {1, 2, 3, 4, 5}),
        (Constant(0.1), frozenset()),
        (Power(0.1, 0.5), frozenset()),
        (Power(0.1, 1.0001), frozenset()),
    ):
        setting = conditions.on(problem, step_size=step_size, radius=radius)
        found = verdict(setting, "Khanh et al., Theorem 3.2")
        assert found.properties == expected


def test_theorem_4_2_and_its_limits():
    def applies(rho, t):
        setting = nonconvex(method="extragradient", smoothness=4.0, **run(rho, t))
        return verdict(setting, "Theorems 4.1").applies

    # nu = 1/2: t below (2 - 1) / (4 * 2.25) = 1/9.
    assert applies(0.125, 0.111) and not applies(0.125, 1 / 9)
    assert applies(0.0, 0.499) and not applies(0.0, 0.5)
    assert not applies(0.25, 1e-6)


@pytest.mark.parametrize(
    "change, applies, properties",
    [
        ({}, True, {2, 4}),
        ({"kl_exponent": 0.5}, True, {1, 2, 3, 4, 5}),
        ({"descent": False}, False, set()),
        ({"descent": None}, None, set()),
        ({"radius": Constant(1.0)}, False, set()),
        ({"step_size": Constant(0.23)}, False, set()),  # 2 (1 - nu) / (L (1 + nu)^2)
        ({"method": "usam"}, False, set()),  # its error is relative if it is smooth
        (
            {"method": "usam", "smooth": True, "radius": Constant(0.25)},
            True,
            {1, 2, 3, 4},
        ),
        ({"method": "usam", "radius": Constant(0.0)}, True, {2, 4}),
    ],
)
def test_theorem_4_1_needs_the_descent_condition_alone(change, applies, properties):
    known = {"smooth": False, "descent": True, "bounded_level_sets": True}
    setting = nonconvex(
        **({"method": "igdr", "smoothness": 2.0, **run(0.5, 0.2)} | known | change)
    )
    found = verdict(setting, "Theorems 4.1")
    assert (found.applies, found.properties) == (applies, properties)


def test_what_is_missing_without_a_lower_bound():
    known = {"bounded_below": False, "method": "igdr"}
    setting = nonconvex(**run(0.1, 0.1), **known)
    [text] = verdict(setting, "Theorems 4.1").follows
    assert text.startswith("f(x^k) -> -infinity, or every accumulation point")
    setting = nonconvex(step_size=DIMINISH_1, radius=Power(0.1, 1), bounded_below=False)
    [failure] = corollary_3_5(setting).failures
    assert failure.text == "inf f(x^k) > -infinity"


def test_rates_under_kl():
    def follows(q):
        setting = nonconvex(method="usam", step_size=Constant(0.01), kl_exponent=q)
        return " ".join(verdict(setting, "Theorems 4.1").follows)

    assert "finitely many" in follows(0.0)
    assert "linear convergence" in follows(0.5)
    assert "iterates O(k^-0.5)" in follows(0.75)
    # log(1 + exp(-x)) has it for every q, and iterates that run away at a rate of 1/k.
    assert follows(0.5).count("if there is an accumulation point: linear") == 1


@pytest.mark.parametrize(
    "known, expected",
    [
        ({}, {1, 2, 3}),
        ({"kl_exponent": 0.0}, {1, 2, 3}),
        ({"bounded_level_sets": True}, {1, 2, 3, 4}),
        ({"bounded_level_sets": True, "kl_exponent": 0.0}, {1, 2, 3, 4, 5}),
        ({"pl": 0.5}, {1, 2, 3, 4}),
        ({"pl": 0.5, "kl_exponent": 0.5}, {1, 2, 3, 4, 5}),
    ],
)
def test_iterates_converge_only_where_they_cannot_run_away(known, expected):
    setting = nonconvex(method="usam", step_size=Constant(0.01), **known)
    assert verdict(setting, "Theorems 4.1").properties == expected


STOCHASTIC = ("4.1 (", "4.3 and 4.5", "Loizou, Theorem 3.2", "3.3 and 3.4", "3.7")


def test_shuffled_examples_are_not_drawn_anew():
    problem = finite_sums.parabolas([0.0, 0.0, 0.0])
    for fresh in (True, False):
        setting = conditions.on(
            problem,
            scheme=sampling.uniform(3),
            method="sgd",
            step_size=Constant(0.1),
            variance=0.0,
            fresh_samples=fresh,
        )
        for name in STOCHASTIC:
            assert verdict(setting, name).applies == fresh, name


def test_the_full_batch_is_no_sample():
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    for scheme, stochastic in ((sampling.full(3), False), (sampling.uniform(3), True)):
        setting = conditions.on(problem, scheme=scheme, **run(0.1, 0.1))
        assert setting.stochastic == stochastic


def test_the_smoothness_of_a_sample_has_its_weight():
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    rare = sampling.Single(np.array([0.01, 0.01, 0.98]))
    # 1/L_max is 1, but what is seen when the first is drawn has L = 1 / 0.03.
    setting = conditions.on(problem, scheme=rare, variance=1.0, step_size=Constant(0.5))
    [failure] = verdict(setting, "4.3 and 4.5").failures
    assert failure.reason == "sup eta = 0.5 > 1/beta = 0.03"


def test_a_large_radius_is_refused_without_growth():
    # B = 0: 0 is not below gamma (1 - L rho) < 0.
    setting = conditions.on(
        finite_sums.parabolas([-1.0, -1.0, 2.0]),
        scheme=sampling.uniform(3),
        **run(5.0, 0.1),
    )
    [failure] = verdict(setting, "Theorem 3.7").failures
    assert failure.reason == "2 B Q = 0 > gamma (1 - L rho) = -0.4"


def test_a_consistent_system_interpolates():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(8, 3))
    for noise, expected in ((0.0, True), (1e-3, False)):
        target = matrix @ generator.normal(size=3) + noise * generator.normal(size=8)
        problem = finite_sums.least_squares(matrix, target)
        scheme = sampling.uniform(8)
        rule = unified.default(unified.constants(problem, scheme), 0.0)
        setting = conditions.on(problem, scheme=scheme, method="usam", **run(*rule))
        assert verdict(setting, "Corollaries 3.3 and 3.4").applies == expected


def test_a_step_size_of_zero_moves_nothing():
    problem = problems.quadratic([0.5, 1.0], [1.0, 1.0])
    for method in ("sam", "usam", "sgd"):
        setting = conditions.on(problem, method=method, step_size=Constant(0.0))
        verdicts = conditions.assess(setting)
        assert not any(found.applies for found in verdicts)


SAMPLED = {"stochastic": True, "sampled_smoothness": 2.0}
EXTREMES = {
    "method": ["sam", "usam", "igdr", "igd", "unified_sam", "gnp", "unheard_of"],
    "coefficients": [{}, {"lam": 0.5}, {"lam": 1.5}, {"lam": "1/t"}, {"alpha": 0.0}],
    "step_size": [
        Constant(0.0),
        Constant(0.1),
        Power(0.1, 1),
        PLStep(0.5, 0.1),
        Cosine(0.1, 10),
    ],
    "radius": [Constant(0.0), Constant(9.0), PLRadius(0.1)],
}
KNOWN = [
    {},
    {"smoothness": 1.0, "strong_convexity": 1.0, "convex": True},
    {"smoothness": float("inf"), "smooth": False, "pl": 0.5},
    {"smoothness": 1.0, "pl": 0.5, "kl_exponent": 0.75},
]
SAMPLES = [
    {},
    {"stochastic": True},
    SAMPLED | {"variance": 0.0},
    SAMPLED | {"residual": sampling.ExpectedResidual(0.0, 0.0, 1.0)},
    SAMPLED | {"residual": sampling.ExpectedResidual(2.0, 0.0, 0.0), "horizon": 10},
]


def test_no_setting_breaks_it():
    for *chosen, known, samples in itertools.product(
        *EXTREMES.values(), KNOWN, SAMPLES
    ):
        fields = dict(zip(EXTREMES, chosen, strict=True))
        if fields["method"] == "sgd" and fields["radius"].supremum:
            continue
        setting = conditions.Setting(**fields, bounded_below=True, **known, **samples)
        for found in conditions.assess(setting):
            assert bool(found.follows) == (found.applies is True), (setting, found)


def test_sgd_has_no_radius():
    with pytest.raises(ValueError, match="method 'sgd' has no radius, got constant 1"):
        nonconvex(method="sgd", step_size=DIMINISH_1, radius=Constant(1.0))


def test_theorem_3_2_of_unified_sam_up_to_its_largest_constants():
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    scheme = sampling.uniform(3)
    known = unified.constants(problem, scheme)

    def found(share):
        rho, gamma = unified.default(known, 0.5)
        setting = conditions.on(
            problem,
            scheme=scheme,
            method="unified_sam",
            coefficients={"lam": 0.5},
            **run(rho, share * gamma),
        )
        return verdict(setting, "Oikonomou and Loizou, Theorem 3.2")

    assert found(1.0).applies and f"N = {0.763:.2f}"[:3] in found(1.0).follows[0]
    assert found(1.01).applies is False
    assert "gamma*(rho)" in found(1.01).failures[0].reason


def test_theorem_3_5_knows_its_rule():
    problem = problems.quadratic([0.5, 1.0], [1.0, 1.0])
    rule = unified.default(unified.deterministic(problem), 1.0)
    good = {"step_size": PLStep(0.5, rule.gamma), "radius": PLRadius(rule.rho)}

    def found(**change):
        setting = conditions.on(problem, **(good | change))
        return verdict(setting, "Oikonomou and Loizou, Theorem 3.5")

    assert 3 in found().properties
    assert found(step_size=DIMINISH_1).applies is False


def test_no_property_is_claimed_where_a_method_stalls():
    problem = problems.quadratic([1.0, 1.5], [1.0, 1.0])
    left, rule = {}, run(0.1, 1 / 3)
    for name, method in (("sam", sam_jax.sam), ("usam", sam_jax.usam)):
        tx = optax.chain(method(0.1), optax.sgd(1 / 3))
        left[name] = float(runs.recorded(problem, tx, [2000], problem.gap)[0])
        setting = conditions.on(problem, method=name, **rule)
        claimed = 5 in conditions.properties(conditions.assess(setting))
        assert (left[name] < 1e-12) == claimed == (name == "usam")
    [text] = verdict(conditions.on(problem, **rule), "Yun, Theorem 3.1").follows
    floor = float(text.split("below ")[1].split(",")[0])
    assert left["sam"] < floor < 20 * left["sam"]


@pytest.mark.parametrize("field", ["strong_convexity", "pl"])
def test_impossible_constants(field):
    with pytest.raises(ValueError, match="mu = 2 and L = 1"):
        nonconvex(step_size=DIMINISH_1, **{field: 2.0})
