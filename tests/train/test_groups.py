"""m-sharpness: a function of m, whatever devices the groups lie on."""

import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from sam_jax import methods, models
from sam_jax.methods.devices import GROUP_AXIS
from sam_jax.train import build, layout, sharding, step
from sam_jax.train import groups as groups_lib
from tests import tiers
from tests.train.steps import SHAPE, SPEC

BATCH = 64
PLACES = {"replicated": (8, 1), "fsdp 2": (4, 2), "fsdp 8": (1, 8)}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def small_arrays_are_cut(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 16)


def batch(number):
    """Random images whose label is their brightest row."""
    image = np.random.default_rng(number).integers(0, 255, (BATCH, *SHAPE))
    label = image.sum((2, 3)).argmax(-1).astype(np.int32)
    weight = np.ones(BATCH, np.float32)
    return {
        "image": image.astype(np.uint8),
        "label": label,
        "true_label": label,
        "weight": weight,
    }


def smooth(norm=True, dropout=0.0, axis=None):
    """Two dense layers with BatchNorm between; without ReLU, whose kinks blow up.

    Of a named axis the statistics are of all its parts.
    """

    def average(x):
        return x.mean(0) if axis is None else jax.lax.pmean(x.mean(0), axis)

    def init(key, images):
        first, last = jax.random.split(key)
        params = {
            "first": jax.random.normal(first, (images[0].size, 16)) / 4,
            "scale": jnp.ones(16),
            "last": jax.random.normal(last, (16, 10)) / 4,
        }
        return params, {"mean": jnp.zeros(16), "var": jnp.ones(16)}

    def apply(params, model_state, images, *, train, key=None):
        x = images.reshape(len(images), -1) @ params["first"]
        if norm:
            center = average(x)
            used = {"mean": center, "var": average(jnp.square(x - center))}
            x = (x - used["mean"]) / jnp.sqrt(used["var"] + 1e-3)
            model_state = jax.tree.map(
                lambda old, new: 0.9 * old + 0.1 * new, model_state, used
            )
        x = jnp.tanh(x * params["scale"])
        if dropout:
            x = x * jax.random.bernoulli(key, 1 - dropout, x.shape)
        return x @ params["last"], model_state

    return models.Model(init, apply)


class Run:
    """A step on a grid of devices and the state before it."""

    def __init__(self, config, model):
        with mock.patch.object(build.network, "network", lambda *_, **__: model):
            made = build.steps(config, SPEC)
        self.mesh, self.step = made.mesh, made.train_step
        self.init = functools.partial(made.init, made.seed)
        self.found = {}

    @property
    def state(self):
        """A new one each time, as a step takes it away."""
        return self.init()

    def after(self, steps):
        """Weights, statistics and the metrics of the last step."""
        if steps not in self.found:
            state, metrics = self.init(), {}
            for number in range(steps):
                placed = sharding.put_batch(batch(number), self.mesh)
                state, metrics = self.step(state, placed)
            assert self.step._cache_size() == 1
            seen = state.params, state.model_state, metrics
            self.found[steps] = jax.device_get(seen)
        return self.found[steps]


RUNS: dict[str, Run] = {}  # of the network that most tests have, by their settings


@pytest.fixture
def run(tiny):
    """``run("sam", m, data, fsdp, **settings)``: made once for the same arguments."""

    def make(method="sam", m=None, data=1, fsdp=1, model=None, **settings):
        plain = {
            "mesh.data": data,
            "mesh.fsdp": fsdp,
            "method_group_size": m,
            "batch_size": BATCH,
            "schedule.name": "constant",
            "learning_rate": 0.2,
            "weight_decay.value": 0.01,
        }
        config = tiny(method, **(plain | settings))
        if model is not None:
            return Run(config, model)
        key = repr(config)
        if key not in RUNS:
            RUNS[key] = Run(config, smooth())
        return RUNS[key]

    return make


def assert_close(a, b, tolerance=1e-10):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        a,
        b,
    )


# ── One device and eight ─────────────────────────────────────────────────────────────


# Every pair of a method, a size of the groups and a place; each is another program.
EVERY_PLACE = [
    (method, m, [*PLACES][(i + j) % 3])
    for i, method in enumerate(("sam", "vasso", "looksam"))
    for j, m in enumerate((None, 8, 16))
]
EVERY_PLACE += [("gsam", 16, "fsdp 2"), ("friendly_sam", 8, "fsdp 8")]
SOME_PLACES = [EVERY_PLACE[0], EVERY_PLACE[4], EVERY_PLACE[8]]
# The whole optimizer, and the loss in parts; averages and decisions are above.
KINDS = ("lookbehind", "functional_sam")


@pytest.mark.parametrize(
    ("method", "m", "place"),
    tiers.cases(SOME_PLACES, EVERY_PLACE, "all pairs"),
)
def test_the_numbers_do_not_depend_on_the_devices(run, method, m, place):
    data, fsdp = PLACES[place]
    placed = run(method, m, data, fsdp)
    first = placed.state.params["first"].sharding
    assert first.is_fully_replicated == (fsdp == 1)
    assert len(first.device_set) == 8
    *found, metrics8 = placed.after(10)
    *expected, metrics = run(method, m).after(10)
    assert_close(found, expected)
    assert_close(metrics8, metrics, 1e-5)  # float32


@pytest.mark.parametrize(
    "name", tiers.cases((*KINDS, "random_sam"), methods.names(), "every method")
)
def test_every_method_in_groups_of_one_and_of_several_devices(run, name):
    """Two groups on each of two, or one for each two of eight, cut over four."""
    several, shared = run(name, 16, 2, 1).after(3), run(name, 16, 2, 4).after(3)
    assert_close(several[:2], shared[:2])


def test_dropout_is_of_the_group_and_not_of_the_device(run):
    model = smooth(dropout=0.5)
    [one, eight, whole] = (
        run("sam", m, devices, model=model).after(3)[0]
        for m, devices in ((8, 1), (8, 8), (None, 1))
    )
    assert_close(eight, one)
    assert not np.allclose(one["first"], whole["first"], rtol=1e-3)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_every_group_has_a_key_of_its_own(devices):
    groups = layout.lay_out(BATCH, 8, 1, "group", devices)

    def draws(params, kept, examples, key):
        return jax.random.normal(key, examples.shape)

    mesh = sharding.make_mesh(devices, 1, groups.members)
    draw = groups.average(draws, groups_lib.ROWS, mesh)
    examples = jnp.zeros((BATCH, 2))
    rows = jax.jit(draw)({}, {}, examples, jax.random.key(0))
    assert rows.shape == examples.shape
    assert len(np.unique(rows)) == rows.size


@pytest.mark.slow("compiles residual networks")
@pytest.mark.parametrize(
    "settings",
    [
        {"method_group_size": 8, "remat": True},
        {"method_group_size": 16, "accumulation_steps": 4},
        {"method_group_size": 8, "batch_norm": "batch"},
    ],
    ids=["remat", "accumulated", "lockstep"],
)
def test_a_residual_network_from_its_configuration(tiny, settings):
    network = {"model.name": "resnet_digits", "model.width": 4, "model.options": {}}
    # In other batches the background of the digits lies on the kink of a ReLU, where
    # rounding decides about the gradient.
    network["data.train_examples"] = None
    found = []
    for grid in ({"mesh.data": 1}, {"mesh.data": 2, "mesh.fsdp": 2}):
        made = build.build(tiny("vasso", **network, **grid, **settings))
        train_state = made.init(made.seed)
        batches = made.dataset.train.batches(batch_size=32, seed=0)
        for _ in range(3):
            placed = sharding.put_batch(next(batches), made.mesh)
            train_state, _ = made.train_step(train_state, placed)
        found.append(jax.device_get((train_state.params, train_state.model_state)))
    assert_close(*found, tolerance=1e-5)  # images are float32 in the trainer


# ── Against the formulas ─────────────────────────────────────────────────────────────


def mean(trees):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def along(a, x, *others):
    """``a x + b y + ...``"""
    total = jax.tree.map(lambda leaf: a * leaf, x)
    if others:
        total = jax.tree.map(jnp.add, total, along(*others))
    return total


def dot(a, b):
    return sum(
        jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def unit(a):
    return along(1 / jnp.sqrt(dot(a, a)), a)


RHO = 0.3


def sam(g, gradient, kept, t):
    return gradient(along(RHO, unit(g))), kept


def vasso(g, gradient, kept, t, theta=0.4):
    e = g if t == 0 else along(1 - theta, kept, theta, g)
    return gradient(along(RHO, unit(e))), e


def gsam(g, gradient, kept, t, alpha=0.5):
    above = gradient(along(RHO, unit(g)))
    across = along(1, g, -dot(g, unit(above)), unit(above))
    return along(1, above, -alpha, across), kept


def looksam(g, gradient, kept, t, k=3, alpha=0.7):
    if t % k == 0:
        above = gradient(along(RHO, unit(g)))
        return above, along(1, above, -dot(above, unit(g)), unit(g))
    length = alpha * jnp.sqrt(dot(g, g) / dot(kept, kept))
    return along(1, g, length, kept), kept


BY_HAND = {
    sam: {},
    vasso: {"method.theta": 0.4},
    gsam: {"method.alpha": 0.5},
    looksam: {"method.k": 3, "method.alpha": 0.7},
}


@pytest.mark.parametrize("by_hand", BY_HAND, ids=lambda f: f.__name__)
def test_each_group_perturbs_with_its_own_gradient(run, by_hand):
    m, rate, decay, steps = 16, 0.2, 0.01, 7
    settings = {"method.rho": RHO, "optimizer.sgd.momentum": 0.0}
    settings |= BY_HAND[by_hand]
    method = run(by_hand.__name__, m, 2, 1, **settings)
    model = smooth()
    start = method.state
    params, statistics = jax.device_get((start.params, start.model_state))
    kept = None

    @jax.jit
    def value_and_grad(params, statistics, images, labels):
        def loss_fn(params):
            logits, new = model.apply(params, statistics, images / 255.0, train=True)
            log_p = jax.nn.log_softmax(logits)
            return -jnp.mean(log_p[jnp.arange(m), labels]), new

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    for t in range(steps):
        seen = batch(t)
        directions, states, news, losses = [], [], [], []
        for first in range(0, BATCH, m):
            own = seen["image"][first : first + m], seen["label"][first : first + m]

            def gradient(displacement, own=own, params=params, statistics=statistics):
                moved = along(1, params, 1, displacement)
                return value_and_grad(moved, statistics, *own)[1]

            (loss, new), g = value_and_grad(params, statistics, *own)
            direction, after = by_hand(g, gradient, kept, t)
            directions.append(direction)
            states.append(after)
            news.append(new)
            losses.append(loss)
        kept = None if states[0] is None else mean(states)
        statistics = mean(news)
        params = along(1 - rate * decay, params, -rate, mean(directions))
    found, found_statistics, metrics = method.after(steps)
    assert_close(found, params, 1e-9)
    assert_close(found_statistics, statistics, 1e-9)
    np.testing.assert_allclose(metrics["loss"], sum(losses) / len(losses), rtol=1e-6)


def test_each_group_draws_its_own_noise(run):
    """R-SAM on a batch of the same examples again and again: only the noise differs."""
    m, rate, decay = 16, 0.2, 0.01
    settings = {"method.rho": RHO, "method.sigma": 0.3}
    model = smooth()
    method = run("random_sam", m, 2, 1, model, **settings)
    start = method.state
    params, statistics = jax.device_get((start.params, start.model_state))
    own = jax.tree.map(lambda x: x[:m], batch(0))
    repeated = jax.tree.map(lambda x: np.concatenate([x] * (BATCH // m)), own)

    @jax.grad
    def grad_fn(params):
        logits, _ = model.apply(params, statistics, own["image"] / 255.0, train=True)
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(log_p[jnp.arange(m), own["label"]])

    key = jax.random.fold_in(jax.random.key(start.seed), 0)
    _, dropout_key = jax.random.split(key)
    tx = sam_jax.random_sam(RHO, sigma=0.3)

    @jax.jit
    def of_group(group):
        keys = {
            "key": jax.random.fold_in(key, step.METHOD_STREAM),
            "group_key": jax.random.fold_in(
                jax.random.fold_in(dropout_key, group), step.GROUP_STREAM
            ),
        }
        state = tx.init(params)
        return tx.update(grad_fn(params), state, params, grad_fn=grad_fn, **keys)[0]

    directions = [of_group(group) for group in range(BATCH // m)]
    assert len({float(dot(d, d)) for d in directions}) == BATCH // m
    expected = along(1 - rate * decay, params, -rate, mean(directions))
    new, _ = method.step(start, sharding.put_batch(repeated, method.mesh))
    assert_close(jax.device_get(new.params), expected)


def test_smaller_groups_train_otherwise(run):
    """What the tests above compare is not one and the same for all m."""
    found = [run("vasso", m).after(10)[0]["first"] for m in (None, 16, 8)]
    for a, b in itertools.pairwise(found):
        assert np.abs(a - b).max() > 1e-4


# ── Accumulation ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", tiers.cases((*KINDS, "looksam"), methods.names(), "every method")
)
def test_accumulation_is_the_large_batch(run, name):
    network = smooth(norm=False)
    at_once = run(name, model=network).after(3)
    parts = run(name, None, 2, 2, network, accumulation_steps=4).after(3)
    assert_close(parts[0], at_once[0])
    assert_close(parts[2], at_once[2], 1e-5)


def test_groups_as_large_as_a_part_are_m_sam(run):
    """Also with BatchNorm: the parts are the groups."""
    expected = run("vasso", 16).after(4)
    assert_close(run("vasso", 16, accumulation_steps=4).after(4), expected)
    assert_close(run("vasso", 16, 4, 1, accumulation_steps=4).after(4), expected)


def test_statistics_are_of_the_examples_that_pass_together(run):
    """Parts of a group are every c-th example, wherever these lie."""
    model, settings = smooth(), {"accumulation_steps": 2, "weight_decay.value": 0.0}
    before = jax.device_get(run("sgd").state)
    images = batch(0)["image"] / 255.0
    for m, devices in ((None, 1), (None, 8), (32, 1), (32, 8)):
        _, statistics, _ = run("sgd", m, devices, **settings).after(1)
        parts = (
            [images[0::2], images[1::2]] if m is None else [images[:32], images[32:]]
        )
        expected = mean(
            model.apply(before.params, before.model_state, part, train=True)[1]
            for part in parts
        )
        assert_close(statistics, expected)


def test_accumulated_dropout_differs_between_parts():
    """One mask for all parts would be no dropout of the whole."""

    def draws(x, key):
        return jax.random.normal(key, x.shape)

    accumulated = groups_lib.accumulate(draws, groups_lib.ROWS, 4)
    rows = accumulated(jnp.zeros(8), jax.random.key(0))
    assert len(np.unique(rows)) == 8


# ── BatchNorm over all groups ────────────────────────────────────────────────────────


def test_statistics_of_the_whole_batch(run):
    network = smooth(axis=GROUP_AXIS)
    together = {"batch_norm": "batch", "model": network}
    one = run("vasso", 16, **together).after(4)
    assert_close(run("vasso", 16, 8, **together).after(4)[:2], one[:2])
    assert_close(run("vasso", 16, 2, 2, **together).after(4)[:2], one[:2])
    # Without a perturbation all groups have the same weights: it is the whole batch.
    unmoved = run("sam", 16, **together, **{"method.rho": 0.0}).after(4)
    assert_close(unmoved[:2], run("sgd").after(4)[:2])
    assert np.abs(one[0]["first"] - run("vasso", 16).after(4)[0]["first"]).max() > 1e-6
