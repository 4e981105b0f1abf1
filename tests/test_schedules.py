"""The step sizes of Khanh et al. 2024, section 5, and the weights of Unified SAM."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import schedules

EPOCHS = [1, 2, 6, 7, 200]  # n, from 1
UPDATES = 351  # in an epoch: 45,000 examples in batches of 128
ETA = 0.1


def in_epoch(schedule, n):
    """The values at the first and the last update of epoch n."""
    first, last = (n - 1) * UPDATES, n * UPDATES - 1
    return [float(schedule(first)), float(schedule(last))]


@pytest.mark.parametrize(
    "schedule, expected",
    [
        # eta / n
        (
            schedules.power_decay(ETA, 1.0, UPDATES),
            [0.1, 0.05, 0.1 / 6, 0.1 / 7, 0.0005],
        ),
        # eta / n^0.5001 = eta / (sqrt(n) n^0.0001)
        (
            schedules.power_decay(ETA, 0.5001, UPDATES),
            [ETA / math.sqrt(n) / math.exp(1e-4 * math.log(n)) for n in EPOCHS],
        ),
        # eta / (m log m): m = 2, 2, 3, 3, 42 as n / 5 is 0, 0, 1, 1, 40
        (
            schedules.log_decay(ETA, UPDATES),
            [0.0721348, 0.0721348, 0.0303413, 0.0303413, ETA / (42 * math.log(42))],
        ),
    ],
    ids=["diminish 1", "diminish 2", "diminish 3"],
)
def test_published_step_sizes(schedule, expected):
    for n, value in zip(EPOCHS, expected, strict=True):
        assert in_epoch(schedule, n) == pytest.approx([value] * 2, rel=1e-5)


def test_log_decay_changes_with_the_fifth_epoch():
    schedule = schedules.log_decay(ETA, UPDATES)
    values = [in_epoch(schedule, n)[0] for n in range(1, 11)]
    assert values == pytest.approx([0.0721348] * 4 + [0.0303413] * 5 + [0.0180337])


def test_the_almost_constant_radius():
    radius = schedules.power_decay(1.0, 0.001)
    # k^-0.001 = 0.99 at k = 0.99^-1000, near 23,163.
    assert float(radius(round(0.99**-1000) - 1)) == pytest.approx(0.99, abs=1e-6)
    assert float(radius(10**6 - 1)) == pytest.approx(10**-0.006, rel=1e-5)


# What the authors' code uses in epochs 0, 1, 5, 6 and 199.
RELEASED = [0, 1, 5, 6, 199]


@pytest.mark.parametrize(
    "schedule, expected",
    [
        # eta, then eta / e^0.5001
        (
            schedules.power_decay_released(ETA, 0.5001, UPDATES),
            [0.1, 0.1, 0.0447142, 0.0408175, 0.0070851],
        ),
        # eta, then m = 3 in epochs 1-5, 4 in 6-10, 42 in 196-200
        (
            schedules.log_decay_released(ETA, UPDATES),
            [0.1, 0.0303413, 0.0303413, 0.0180337, ETA / (42 * math.log(42))],
        ),
    ],
    ids=["diminish 2", "diminish 3"],
)
def test_released_step_sizes(schedule, expected):
    for epoch, value in zip(RELEASED, expected, strict=True):
        assert in_epoch(schedule, epoch + 1) == pytest.approx([value] * 2, rel=1e-5)


def test_the_released_diminish_2_lags_the_published_one_by_an_epoch():
    published = schedules.power_decay(ETA, 0.5001)
    released = schedules.power_decay_released(ETA, 0.5001)
    counts = jnp.arange(200)
    np.testing.assert_array_equal(released(counts + 1), published(counts))
    assert released(0) == published(0)


def test_the_released_diminish_3_decays_up_to_three_epochs_earlier():
    published, released = schedules.log_decay(ETA), schedules.log_decay_released(ETA)
    epochs = jnp.arange(200)
    differs = np.flatnonzero(np.asarray(published(epochs) != released(epochs)))
    # m changes with e = 1, 6, 11 .. there, with e = 4, 9, 14 .. in the paper.
    assert set(differs) == {0} | {e for e in range(200) if e % 5 in (1, 2, 3)}
    assert released(0) / published(0) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32])
def test_perfect_squares_up_to_a_million(dtype):
    counts = np.arange(10**6 + 1)
    radius = jax.jit(schedules.perfect_squares(0.5, 1.0))(counts.astype(dtype))
    k = counts + 1
    squares = np.zeros(len(k) + 1, bool)
    squares[np.arange(1, 1001) ** 2] = True
    np.testing.assert_array_equal(radius == 0.5, squares[1:])
    np.testing.assert_allclose(radius[~squares[1:]], 0.5 / k[~squares[1:]], rtol=1e-6)


def test_perfect_squares_count_epochs():
    radius = schedules.perfect_squares(1.0, 0.5, transition_steps=10)
    seen = [float(radius(count)) for count in (0, 9, 10, 29, 30, 39, 40)]
    expected = [1, 1, 2**-0.5, 3**-0.5, 1, 1, 5**-0.5]
    assert seen == pytest.approx(expected, rel=1e-6)


def test_coefficients_may_be_traced():
    exponents = jnp.array([0.0, 0.5, 1.0])
    values = jax.vmap(lambda p: schedules.power_decay(2 * p, p)(3))(exponents)
    np.testing.assert_allclose(values, [0, 0.5, 0.5], rtol=1e-6)


def test_named_lambdas_count_from_one():
    one_over_t, rest = schedules.one_over_t(), schedules.one_minus_one_over_t()
    for count in range(10):
        assert float(one_over_t(count)) == pytest.approx(1 / (count + 1), rel=1e-6)
        assert float(rest(count)) == pytest.approx(1 - 1 / (count + 1), abs=1e-6)
    assert one_over_t(0) == 1 and rest(0) == 0


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint32])
@pytest.mark.parametrize(
    "schedule",
    [
        schedules.power_decay(ETA, 0.5, 10),
        schedules.log_decay(ETA, 10),
        schedules.power_decay_released(ETA, 0.5, 10),
        schedules.log_decay_released(ETA, 10),
        schedules.perfect_squares(ETA, 0.5, 10),
        schedules.one_over_t(),
        schedules.one_minus_one_over_t(),
    ],
)
def test_traced_counts_of_any_integer_dtype(schedule, dtype):
    counts = jnp.arange(60, dtype=dtype)
    with jax.numpy_dtype_promotion("strict"):
        traced = jax.jit(jax.vmap(schedule))(counts)
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, [schedule(c) for c in range(60)], rtol=1e-6)


def test_float64_is_kept():
    with jax.enable_x64(True):
        value = schedules.power_decay(ETA, 1.0)(jnp.array(2))
        assert value.dtype == jnp.float64
        assert float(value) == pytest.approx(0.1 / 3, rel=1e-15)


def test_optax_takes_them():
    tx = optax.sgd(schedules.power_decay(1.0, 1.0))
    state, seen = tx.init(jnp.ones(())), []
    for _ in range(3):
        update, state = tx.update(jnp.ones(()), state)
        seen.append(-float(update))
    assert seen == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: schedules.power_decay(-0.1, 1.0), "init_value"),
        (lambda: schedules.power_decay(math.nan, 1.0), "init_value"),
        (lambda: schedules.power_decay(math.inf, 1.0), "init_value"),
        (lambda: schedules.power_decay(0.1, -1.0), "exponent"),
        (lambda: schedules.power_decay(0.1, math.nan), "exponent"),
        (lambda: schedules.power_decay(0.1, math.inf), "exponent"),
        (lambda: schedules.power_decay(0.1, 1.0, 0), "transition_steps"),
        (lambda: schedules.log_decay(-1.0), "init_value"),
        (lambda: schedules.log_decay(0.1, 0), "transition_steps"),
        (lambda: schedules.log_decay(0.1, period=0), "period"),
        (lambda: schedules.power_decay_released(-0.1, 1.0), "init_value"),
        (lambda: schedules.power_decay_released(0.1, -1.0), "exponent"),
        (lambda: schedules.log_decay_released(0.1, period=0), "period"),
        (lambda: schedules.log_decay_released(0.1, 0), "transition_steps"),
        (lambda: schedules.perfect_squares(math.inf, 1.0), "init_value"),
        (lambda: schedules.perfect_squares(0.1, math.nan), "exponent"),
    ],
)
def test_bad_arguments_are_refused(make, argument):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got "):
        make()


# ── Tied to the learning rate ────────────────────────────────────────────────────────


def test_tied_to_is_linear_between_the_bounds():
    # rho = 0.1 + 0.5 (lr - 0.02) / 0.08, lr = 0.1, 0.08, 0.06, 0.04, 0.02.
    learning_rate = optax.linear_schedule(0.1, 0.02, 4)
    rho = schedules.tied_to(learning_rate, 0.1, 0.6, lr_min=0.02, lr_max=0.1)
    seen = [float(rho(count)) for count in range(5)]
    assert seen == pytest.approx([0.6, 0.475, 0.35, 0.225, 0.1], rel=1e-5)


def test_tied_to_stays_within_the_bounds_while_the_rate_does_not():
    # A warm-up from 0, below lr_min, to a peak above lr_max.
    learning_rate = optax.linear_schedule(0.0, 0.2, 4)
    rho = schedules.tied_to(learning_rate, 0.1, 0.6, lr_min=0.05, lr_max=0.15)
    seen = [float(rho(count)) for count in range(5)]
    assert seen == pytest.approx([0.1, 0.1, 0.35, 0.6, 0.6], rel=1e-5)


@pytest.mark.parametrize("x64, dtype", [(False, jnp.float32), (True, jnp.float64)])
def test_tied_to_in_a_jitted_step_and_after_a_constant_rate(x64, dtype):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"):
        rho = schedules.tied_to(
            optax.constant_schedule(0.075), 0.1, 0.6, lr_min=0.05, lr_max=0.1
        )
        value = jax.jit(rho)(jnp.array(3, jnp.int32))
        assert value.dtype == dtype
        assert float(value) == pytest.approx(0.35, rel=1e-6)


@pytest.mark.parametrize(
    "change, argument",
    [
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"low": -0.1}, "low"),
        ({"low": math.nan}, "low"),
        ({"high": 0.05}, "high"),
        ({"high": math.inf}, "high"),
        ({"lr_min": -1.0}, "lr_min"),
        ({"lr_max": 0.0}, "lr_max"),
        ({"lr_min": 0.1, "lr_max": 0.1}, "lr_max"),
    ],
)
def test_tied_to_refuses_bad_bounds(change, argument):
    given = {
        "learning_rate": optax.constant_schedule(0.1),
        "low": 0.1,
        "high": 0.6,
        "lr_min": 0.01,
        "lr_max": 0.1,
    }
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got "):
        schedules.tied_to(**{**given, **change})
