"""The compiled step: its state, cost and types, the digits card's numbers, devices."""

import functools

import jax
import jax.numpy as jnp
import pytest

from sam_jax.train import build, cards, sharding
from tests.train.steps import Trainer, assert_close, batches, noisy


def first_batches(run, count):
    source = run.dataset.train.batches(
        batch_size=run.config.batch_size, seed=run.config.seed
    )
    return [sharding.put_batch(next(source), run.mesh) for _ in range(count)]


def test_state_is_donated_and_the_step_compiles_once(tiny):
    run = build.build(tiny(ema_decay=0.9))
    current = run.init(run.seed)
    for batch in first_batches(run, 3):
        before = current
        current, _ = run.train_step(current, batch)
        kept = [
            jax.tree_util.keystr(path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(before)
            if not leaf.is_deleted()
        ]
        # The old diagnostics are not inputs of the compiled step: five small arrays.
        assert all("diagnostics" in path for path in kept), kept
        assert len(kept) <= 5
    assert run.train_step._cache_size() == 1


def test_abstract_state_is_that_of_the_state(tiny):
    run = build.build(tiny(ema_decay=0.9))
    current = run.init(run.seed)
    jax.tree.map(
        lambda x, a: (
            (x.shape, x.dtype, x.sharding) == (a.shape, a.dtype, a.sharding)
            or pytest.fail(f"{x} is no {a}")
        ),
        current,
        run.abstract_state(),
    )


def test_bfloat16_computes_and_float32_stays(tiny):
    size = {"model.width": 64}
    runs = {
        dtype: build.build(tiny(ema_decay=0.9, **size, **{"model.dtype": dtype}))
        for dtype in ("float32", "bfloat16")
    }
    losses, states = {}, {}
    for dtype, run in runs.items():
        [batch] = first_batches(run, 1)
        states[dtype], metrics = run.train_step(run.init(run.seed), batch)
        losses[dtype] = float(metrics["loss"])
    floats = [
        leaf.dtype
        for leaf in jax.tree.leaves(states["bfloat16"])
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    assert set(floats) == {jnp.dtype("float32")}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


# ── The digits card: golden numbers, and devices ─────────────────────────────────────

# Of three steps of configs/digits_sam.py on one device.
GOLDEN = {
    "loss": [2.61382, 2.43400, 2.26994],
    "perturbed_loss": [2.85215, 2.65288, 2.48385],
    "grad_norm": [2.88356, 2.57610, 2.37812],
    "update_norm": [0.276749, 0.378213, 0.431254],
}


@functools.cache
def digits_card(devices):
    """State and metrics of three steps of the card."""
    run = build.build(
        cards.load("configs/digits_sam.py", f"--config.mesh.data={devices}")
    )
    current, history = run.init(run.seed), []
    for batch in first_batches(run, 3):
        current, metrics = run.train_step(current, batch)
        history.append(metrics)
    return jax.device_get((current, history))


@pytest.mark.slow("compiles the network of the digits card")
def test_golden_numbers():
    _, history = digits_card(1)
    seen = {name: [float(row[name]) for row in history] for name in GOLDEN}
    for name, expected in GOLDEN.items():
        assert seen[name] == pytest.approx(expected, rel=1e-3), (
            "the numbers of the digits card moved: update GOLDEN only if the card, the "
            "network or its initial weights, the data, their order or augmentation, or "
            f"the mathematics of the step were changed on purpose. Seen: {seen}"
        )


@pytest.mark.slow("compiles the network of the digits card")
def test_eight_devices_give_the_weights_of_one():
    one, history_one = digits_card(1)
    eight, history_eight = digits_card(8)
    assert_close(eight.params, one.params, rtol=1e-4, atol=1e-5)
    assert_close(eight.model_state, one.model_state, rtol=1e-4, atol=1e-5)
    for a, b in zip(history_one, history_eight, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_eight_devices_see_the_whole_batch(tiny, net):
    """BatchNorm, the perturbation and the metrics are those of all examples."""
    settings = {"method.rho": 0.5, "schedule.name": "constant"}
    results = []
    for devices in (1, 8):
        config = tiny("sam", **settings, **{"mesh.data": devices})
        mesh = sharding.make_mesh(devices)
        history = Trainer(config, net(), noisy).run(
            sharding.put_batch(b, mesh) for b in batches(5)
        )
        results.append(history[-1])
    (one, metrics_one), (eight, metrics_eight) = results
    assert len(eight.params["first"].sharding.device_set) == 8
    assert_close(eight.params, one.params)
    assert_close(eight.model_state, one.model_state)
    assert_close(metrics_eight, metrics_one, rtol=1e-4)
