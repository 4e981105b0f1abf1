# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Choosing rho
#
# SAM adds one number, the radius $\rho$, in units of the weights. No value is right
# everywhere: it depends on the network, on the data, and most of all on how much there is
# to overfit. Search it on validation data. A coarse grid is enough: factors of 3 around
# 0.05 to 0.1.
#
# This page trains one network at seven radii, on digits with right labels and with 40 %
# wrong ones, five seeds of each.

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

digits = datasets.load_digits()
images, truth = jnp.asarray(digits.data / 16.0), np.asarray(digits.target)
train, validation, test = slice(0, 1000), slice(1000, 1297), slice(1297, None)
random = np.random.default_rng(0)
wrong = random.permutation(1000)[:400]
noisy = truth[train].copy()
noisy[wrong] = (noisy[wrong] + random.integers(1, 10, 400)) % 10


def logits(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def error(params, rows):
    return 100 * jnp.mean(logits(params, images[rows]).argmax(-1) != truth[rows])


# %% [markdown]
# A radius may be a traced value. So one compiled program trains all radii and seeds at once:


# %%
@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, None))  # over radii
@functools.partial(jax.vmap, in_axes=(None, 0, None))  # over seeds
def trained(rho, seed, labels):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "hidden": jax.random.normal(keys[0], (64, 64)) / 8,
        "out": jax.random.normal(keys[1], (64, 10)) / 8,
    }
    tx = optax.chain(sam_jax.sam(rho), optax.sgd(0.1, momentum=0.9))

    def step(carry, key):
        params, state = carry
        rows = jax.random.choice(key, 1000, (50,))
        grad_fn = jax.grad(lambda p: loss(p, images[rows], labels[rows]))
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), None

    carry = params, tx.init(params)
    (params, _), _ = jax.lax.scan(step, carry, jax.random.split(keys[2], 1000))
    fitted = jnp.mean(logits(params, images[train]).argmax(-1) == labels)
    return error(params, validation), error(params, test), 100 * fitted


radii = np.array([0, 0.01, 0.03, 0.1, 0.3, 1, 3])
seeds = jnp.arange(5)
found = {}
for name, labels in {"right labels": truth[train], "40 % wrong": noisy}.items():
    found[name] = np.array(trained(radii, seeds, jnp.asarray(labels)))
    print(f"{name}\n   rho  validation    test  fit of the labels (%)")
    for rho, (val, unseen, fit) in zip(radii, found[name].mean(-1).T, strict=True):
        print(f"{rho:6g} {val:11.1f} {unseen:7.1f} {fit:10.1f}")

# %% [markdown]
# `rho=0` is SGD. The best radius is the one with the lowest validation error. The test error
# is only reported.

# %%
# Test error over rho: with wrong labels a narrow valley before a cliff, else flat up to 1.
figure, axes = plt.subplots()
places = np.where(radii > 0, radii, 0.003)
for name, (val, unseen, _) in found.items():
    middle, spread = unseen.mean(-1), unseen.std(-1)
    (line,) = axes.plot(places, middle, label=name)
    axes.fill_between(
        places, middle - spread, middle + spread, color=line.get_color(), alpha=0.15
    )
    best = val.mean(-1).argmin()
    axes.plot(places[best], middle[best], "o", markersize=9, color=line.get_color())
axes.set_xscale("log")
axes.set_xticks(places, ["SGD", *(f"{rho:g}" for rho in radii[1:])])
axes.minorticks_off()
axes.set_xlabel("rho")
axes.set_ylabel("test error (%)")
axes.set_ylim(0)
axes.legend(title="chosen on validation: dot", loc="upper left")
plt.show()

# %%
chosen = {name: int(of[0].mean(-1).argmin()) for name, of in found.items()}
for name, best in chosen.items():
    sgd, sam = found[name][1].mean(-1)[[0, best]]
    print(f"{name}: rho {radii[best]:g}, test error {sam:.1f} % (SGD {sgd:.1f} %)")
noisy_errors = found["40 % wrong"][1].mean(-1)
assert noisy_errors[chosen["40 % wrong"]] < noisy_errors[0] - 5
assert radii[chosen["40 % wrong"]] >= radii[chosen["right labels"]]
fit = found["40 % wrong"][2].mean(-1)
assert fit[0] > fit[-1] + 40  # a radius this large learns nothing at all

# %% [markdown]
# What to read in the table:
#
# * **Too small**: the errors are those of SGD. Multiply by 3.
# * **Too large**: the training labels are no longer fitted, and every error rises. Divide
#   by 3. The scale of $\rho$ depends on the method: `usam` and `asam` need other
#   radii ([methods](../methods/index.md)).
# * **Nothing helps**: a network that underfits has nothing for SAM to prevent. With right
#   labels and a small network, expect no more than the spread over seeds.
#
# In the trainer the same search is one command. It continues runs that were
# interrupted, and `--tuned` chooses on validation:
#
#     sam-jax sweep --config=digits_noisy_sam --set=method.rho=0,0.05,0.15,0.5,1.5 \
#         --seeds=3 --tuned
#
# `--set=method.rho=1x,3x,10x` takes multiples of the paper's value for each method.
# [Sweeps](../sweeps.md) explains the other settings, the tables, and what is compiled once.
