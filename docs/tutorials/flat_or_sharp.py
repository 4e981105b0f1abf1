# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Flat or sharp? Measure it
#
# "SAM finds flatter minima" is a statement that can be checked. This page trains one
# network with SGD and with SAM and measures both minima in five ways. It also shows the two
# traps: runs whose losses differ cannot be compared, and some measures change although
# the function does not.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn import datasets

import sam_jax
from sam_jax import sharpness

digits = datasets.load_digits()
images, truth = jnp.asarray(digits.data / 16.0), np.asarray(digits.target)
random = np.random.default_rng(0)
wrong = random.permutation(1000)[:400]  # 40 % of the training labels
given = truth[:1000].copy()
given[wrong] = (given[wrong] + random.integers(1, 10, 400)) % 10
train, test = (images[:1000], jnp.asarray(given)), (images[1000:], truth[1000:])


def logits(params, x):
    return jax.nn.relu(x @ params["hidden"] + params["bias"]) @ params["out"]


def loss(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


# %% [markdown]
# Both runs keep their weights after every epoch.


# %%
def trained(method, epochs, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    params = {
        "hidden": jax.random.normal(keys[0], (64, 128)) / 8,
        "bias": jnp.zeros(128),
        "out": jax.random.normal(keys[1], (128, 10)) / 11,
    }
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    def step(carry, rows):
        params, state = carry
        grad_fn = jax.grad(lambda p: loss(p, (train[0][rows], train[1][rows])))
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def epoch(carry, key):
        order = jax.random.permutation(key, 1000).reshape(20, 50)
        return jax.lax.scan(step, carry, order)[0]

    carry, kept = (params, tx.init(params)), [params]
    for key in jax.random.split(jax.random.key(100 + seed), epochs):
        carry = epoch(carry, key)
        kept.append(carry[0])
    return kept


def error(params):
    return 100 * float(np.mean(logits(params, test[0]).argmax(-1) != test[1]))


runs = {
    "SGD": trained(optax.identity(), 60),
    "SAM": trained(sam_jax.sam(rho=0.3), 60),
}
compiled = sharpness.Compiled(loss)
losses = {name: [float(loss(p, train)) for p in kept] for name, kept in runs.items()}
for name, kept in runs.items():
    print(f"{name}: training loss {losses[name][-1]:.3f}, test {error(kept[-1]):.1f} %")
assert error(runs["SAM"][-1]) < error(runs["SGD"][-1])

# %% [markdown]
# ## Compare at equal loss
#
# SGD has memorized more of the wrong labels, so its training loss is lower. All
# derivatives of a cross-entropy vanish with the loss. A comparison after equal epochs would
# therefore measure how far each run has fitted, not how its minimum is shaped. Take SGD's
# weights at the epoch in which its training loss was that of SAM at the end:

# %%
nearest = int(np.argmin(np.abs(np.array(losses["SGD"]) - losses["SAM"][-1])))
compared = {"SGD": runs["SGD"][nearest], "SAM": runs["SAM"][-1]}
print(f"SGD after epoch {nearest}: training loss {losses['SGD'][nearest]:.3f}")

# %% [markdown]
# ## Five measures
#
# Eigenvalues come with a residual, and estimates with a standard error.

# %%
measures = {
    "largest eigenvalue": lambda p: sharpness.top_eigenvalues(
        compiled, p, k=1, batches=[train]
    ).values[0],
    "trace": lambda p: sharpness.trace(compiled, p, batches=[train], probes=16).value,
    "worst case": lambda p: (
        sharpness.worst_case(compiled, p, 0.3, batches=[train]).value
    ),
    "worst case, m = 50": lambda p: (
        sharpness.m_sharpness(
            compiled,
            p,
            0.3,
            [(train[0][i : i + 50], train[1][i : i + 50]) for i in range(0, 200, 50)],
        ).value
    ),
    "average case": lambda p: (
        sharpness.average_case(compiled, p, 0.03, batches=[train]).value
    ),
}
table = {
    name: {run: float(measure(p)) for run, p in compared.items()}
    for name, measure in measures.items()
}
for name, found in table.items():
    print(f"{name:20} SGD {found['SGD']:9.3f}   SAM {found['SAM']:9.3f}")
assert all(found["SAM"] < found["SGD"] for found in table.values())

# %% [markdown]
# At equal training loss SAM's weights are flatter by every measure, and its test error is
# lower. That they go together here does not mean that one follows from the other.
#
# ## What it looks like
#
# The loss along the direction of the largest eigenvalue, and along random directions whose
# lengths are those of the weights, unit by unit:


# %%
# Rise of the training loss: along the sharpest direction SGD's is steeper, along a random one it is not.
def sharpest(params):
    found = sharpness.top_eigenvalues(compiled, params, k=1, batches=[train])
    return jax.tree.map(lambda v: v[0], found.vectors)


directions = {
    "along the sharpest direction": sharpest,
    "along a random direction": sharpness.random_direction,
}
along = np.linspace(-1, 1, 21)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
rises = {}
for axes, (title, direction) in zip(panels, directions.items(), strict=True):
    for name, params in compared.items():
        found = sharpness.landscape(
            compiled, params, [direction(params)], along, batches=[train]
        )
        rises[title, name] = found.losses - found.losses[10]
        axes.plot(along, rises[title, name], label=name)
    axes.set_xlabel(title)
    axes.set_ylim(0, 1.2 * rises[title, "SGD"].max())
panels[0].set_ylabel("rise of the training loss")
panels[0].legend(loc="upper center")
plt.show()
sgd, sam = (rises["along the sharpest direction", name] for name in compared)
assert sam[5] < sgd[5] and sam[15] < sgd[15]

# %% [markdown]
# A picture along random directions proves little: nearly all of the 10,000 directions are
# flat in both networks. What differs are the few sharp ones.

# %% [markdown]
# ## A trap: rescaling
#
# Multiply the first layer of a ReLU network by 10 and divide the second one by 10. The function
# is the same, and so is every prediction. The sharpness is not:

# %%
sam = compared["SAM"]
rescaled = {
    "hidden": 10 * sam["hidden"],
    "bias": 10 * sam["bias"],
    "out": sam["out"] / 10,
}
np.testing.assert_allclose(logits(sam, images), logits(rescaled, images), atol=1e-3)
worst = functools.partial(sharpness.worst_case, compiled, batches=[train])
for adaptive, rho in ((False, 0.3), (True, 0.05)):
    before, after = (
        float(worst(p, rho=rho, adaptive=adaptive).value) for p in (sam, rescaled)
    )
    print(f"adaptive={adaptive!s:5}: {before:.4f} before, {after:.4f} after")
    if adaptive:  # moves a weight in proportion to its size
        np.testing.assert_allclose(before, after, rtol=0.02)
    else:
        assert after > 2 * before

# %% [markdown]
# Report more than one measure, one of them adaptive. A cross-entropy also falls where the
# logits merely grow; `sharpness.normalized_logits` in the loss removes that. How well any
# of these measures predicts the test error is an open question.
#
# For runs of the trainer, one command measures and draws all of this:
# `sam-jax sharpness runs/sgd runs/sam --measures=lambda_max,trace,plane`. All measures and
# what they cost: [sharpness](../sharpness.md).
