# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # SAM in ten lines
#
# Gradient descent looks for weights with a low loss. Sharpness-aware minimization (SAM)
# looks for weights whose whole neighbourhood has a low loss. Each update first climbs to
# the worst point within a distance $\rho$ and then descends along the gradient found there:
#
# $$w \leftarrow w - \eta\, \nabla L\!\left(w + \rho\,
# \frac{\nabla L(w)}{\lVert \nabla L(w) \rVert}\right)$$
#
# In `sam_jax` this is one element of an Optax chain. The optimizer that follows it
# does not change.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %% [markdown]
# ## A network without any framework
#
# Handwritten digits, a network with one hidden layer, and its loss:

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import datasets

import sam_jax

digits = datasets.load_digits()
images, labels = jnp.asarray(digits.data / 16.0), jnp.asarray(digits.target)
train, test = (images[:1000], labels[:1000]), (images[1000:], labels[1000:])
keys = jax.random.split(jax.random.key(0))
start = {
    "hidden": jax.random.normal(keys[0], (64, 128)) / 8,
    "out": jax.random.normal(keys[1], (128, 10)) / 11,
}


def logits(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]


def loss(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


# %% [markdown]
# ## The ten lines
#
# The only new word is `grad_fn`: the gradient of the same loss on the same batch, as a
# function of the weights. SAM calls it at the perturbed weights.

# %%
tx = optax.chain(sam_jax.sam(rho=0.1), optax.sgd(0.1, momentum=0.9))


@jax.jit
def step(params, state, batch):
    grad_fn = jax.grad(lambda p: loss(p, batch))
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


params, state = start, tx.init(start)
for i in range(300):
    rows = slice(100 * (i % 10), 100 * (i % 10) + 100)
    params, state = step(params, state, (train[0][rows], train[1][rows]))

accuracy = float(jnp.mean(logits(params, test[0]).argmax(-1) == test[1]))
print(f"test accuracy {accuracy:.3f}")
assert accuracy > 0.9

# %% [markdown]
# The state describes the last update: the length of the gradient, how far SAM climbed, and
# the angle between the gradients at the two points.

# %%
for name, value in sam_jax.diagnostics(state).items():
    print(f"{name:20} {float(value):.4f}")
np.testing.assert_allclose(
    sam_jax.diagnostics(state)["perturbation_norm"], 0.1, rtol=1e-5
)

# %% [markdown]
# Most other methods can replace it: `sam_jax.asam(rho=0.5)`, `sam_jax.gsam()`,
# `sam_jax.looksam(k=5)`. In a loop of Flax, Keras, Equinox or others, see
# [other loops](../other_loops.md); complete programs are in the
# [recipes](../recipes.md).
#
# ## Coming from `optax.contrib.sam`
#
# There, SAM is a whole optimizer that wraps two others. Here it is one element of a chain.
#
# | `optax.contrib.sam` | `sam_jax` |
# |---|---|
# | `sam(optax.sgd(0.1), chain(normalize(), optax.sgd(rho)))` | `optax.chain(sam_jax.sam(rho), optax.sgd(0.1))` |
# | `opaque_mode=True`, `grad_fn=lambda p, i: ...` | `grad_fn=lambda p: ...`; there is no step number |
# | `opaque_mode=False`: every second `update` descends, and the learning rate counts half steps | every `update` descends |
# | `sync_period=k`: `k - 1` ascents of length `rho` | `sam_jax.multistep_sam(rho, steps=k - 1, project=False)` |
# | a schedule in the `sgd` of the ascent starts again in every update | `sam_jax.sam(rho=schedule)` |
#
# Both reach the same weights:

# %%
from optax import contrib

grad_fn = jax.grad(lambda p: loss(p, train))
ascent = optax.chain(contrib.normalize(), optax.sgd(0.05))
theirs = contrib.sam(optax.sgd(0.1), ascent, opaque_mode=True)
ours = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1))
a, b, a_state, b_state = start, start, theirs.init(start), ours.init(start)
for _ in range(20):
    of_step = {"grad_fn": lambda p, _: grad_fn(p)}
    a_step, a_state = theirs.update(grad_fn(a), a_state, a, **of_step)
    b_step, b_state = ours.update(grad_fn(b), b_state, b, grad_fn=grad_fn)
    a, b = optax.apply_updates(a, a_step), optax.apply_updates(b, b_step)
largest = max(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.abs(x - y).max(), a, b)))
print(f"largest difference after 20 updates: {float(largest):.1e}")
assert largest < 1e-5

# %% [markdown]
# ## Coming from PyTorch
#
# | PyTorch (davda54/sam and its descendants) | `sam_jax` |
# |---|---|
# | `SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)` | `optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))` |
# | `loss.backward(); opt.first_step(zero_grad=True)`, the loss again, `opt.second_step()` | one `tx.update(grads, state, params, grad_fn=grad_fn)` |
# | `opt.step(closure)` | `grad_fn` is the closure, as a pure function of the weights |
# | `weight_decay=5e-4` of the base optimizer | `optax.add_decayed_weights(5e-4)` between `sam` and `sgd` |
# | `adaptive=True` (no `eta`, biases too) | `sam_jax.asam(rho, eta=0.0, biases=True)`; the paper has `eta=0.01` |
# | `disable_running_stats`, `enable_running_stats` | keep the statistics of the first pass, drop those of `grad_fn` |
# | `model.no_sync()` in the first pass: one perturbation per device | `sam_jax.pmean` after the method only, see [devices](devices.ipynb) |
# | `opt.state_dict()` loses the state of the base optimizer | the state is a tree: save all of it |
#
# The two half steps of PyTorch's loop, written out, give the same weights as one `update`:

# %%
by_hand, w, state = start, start, ours.init(start)
for _ in range(20):
    g = grad_fn(by_hand)
    norm = optax.global_norm(g)
    up = jax.tree.map(lambda x, y, n=norm: x + 0.05 * y / n, by_hand, g)  # first_step
    by_hand = jax.tree.map(lambda x, y: x - 0.1 * y, by_hand, grad_fn(up))  # second
    updates, state = ours.update(grad_fn(w), state, w, grad_fn=grad_fn)
    w = optax.apply_updates(w, updates)
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), by_hand, w)
print("the same weights")

# %% [markdown]
# Next: [choosing rho](choosing_rho.ipynb), the one number that SAM adds.
