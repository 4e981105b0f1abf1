# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Eight devices, and who shares a perturbation
#
# On several devices SAM is not one algorithm but two. Either all devices climb together,
# along the gradient of the whole batch, or each climbs along the gradient of its own
# examples. The number of examples that share one perturbation is called $m$. Results differ
# with $m$, so a program should choose it, not its number of devices.
#
# Without eight devices, XLA makes eight out of a CPU. On a free TPU the same notebook uses
# its cores: the first line below does nothing there.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %%
import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from sklearn import datasets

import sam_jax

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
print(jax.device_count(), "devices:", jax.devices()[0].platform)

digits = datasets.load_digits()
batch = jnp.asarray(digits.data[:512] / 16.0), jnp.asarray(digits.target[:512])
start = jax.random.normal(jax.random.key(0), (64, 10)) / 8


def loss(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(x @ params, y).mean()


# %% [markdown]
# ## One perturbation for all: nothing to do
#
# Under `jax.jit` arrays may be spread over devices as you like. The program computes what
# one device would, so the whole batch shares one perturbation.

# %%
tx = optax.chain(sam_jax.sam(rho=0.5), optax.sgd(0.5))


@jax.jit
def step(params, state, batch):
    grad_fn = jax.grad(lambda p: loss(p, batch))
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


def after(step, params, batch, steps=20):
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state, batch)
    return np.asarray(params)


spread = jax.device_put(batch, jax.NamedSharding(mesh, P("data")))
of_one, of_all = after(step, start, batch), after(step, start, spread)
print(f"largest difference: {np.abs(of_one - of_all).max():.1e}")
np.testing.assert_allclose(of_one, of_all, atol=1e-5)

# %% [markdown]
# ## One perturbation for each: `sam_jax.pmean` after the method
#
# In your own `jax.shard_map`, the place of `sam_jax.pmean` decides. After the method only,
# each device climbs with its own gradient and the directions are averaged. With one
# before the method as well, all climb together.


# %%
def on_devices(*chain):
    tx = optax.chain(*chain)

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P())
    )
    def step(params, state, batch):
        # Otherwise the gradient of replicated parameters arrives summed over devices.
        own = jax.lax.pcast(params, "data", to="varying")
        grad_fn = jax.grad(lambda p: loss(p, batch))
        updates, state = tx.update(grad_fn(own), state, own, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return step


pmean, sam, sgd = sam_jax.pmean("data"), sam_jax.sam(rho=0.5), optax.sgd(0.5)
together = on_devices(pmean, sam, pmean, sgd)
alone = on_devices(sam, pmean, sgd)


def states(chain, step):
    params, state = start, optax.chain(*chain).init(start)
    for _ in range(20):
        params, state = step(params, state, spread)
    return np.asarray(params)


of_together = states((pmean, sam, pmean, sgd), together)
of_alone = states((sam, pmean, sgd), alone)
print(f"all together against one device: {np.abs(of_together - of_one).max():.1e}")
print(f"each alone against one device:   {np.abs(of_alone - of_one).max():.1e}")
np.testing.assert_allclose(of_together, of_one, atol=1e-5)
assert np.abs(of_alone - of_one).max() > 1e-3

# %% [markdown]
# ## The same $m$ on one device
#
# Groups of $m$ examples need no devices: `jax.vmap` over groups, with the same name of the
# axis, computes what devices would. On one device, this program computes
# the weights of the eight. It works for any $m$ on any number of devices:


# %%
def in_groups(m):
    tx = optax.chain(sam_jax.sam(rho=0.5), sam_jax.pmean("group"), optax.sgd(0.5))

    @jax.jit
    def step(params, state, batch):
        groups = jax.tree.map(lambda a: a.reshape(-1, m, *a.shape[1:]), batch)

        @functools.partial(jax.vmap, in_axes=(None, None, 0), axis_name="group")
        def of_group(params, state, batch):
            grad_fn = jax.grad(lambda p: loss(p, batch))
            updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        # All groups end alike: those of the first.
        return jax.tree.map(lambda a: a[0], of_group(params, state, groups))

    state, params = tx.init(start), start
    for _ in range(20):
        params, state = step(params, state, batch)
    return np.asarray(params)


m = 512 // jax.device_count()
print(f"groups of {m} on one device against devices: ", end="")
print(f"{np.abs(in_groups(m) - of_alone).max():.1e}")
np.testing.assert_allclose(in_groups(m), of_alone, atol=1e-5)

# %% [markdown]
# How far does $m$ move the result? The distance to the weights of one shared perturbation:

# %%
# Distance to the weights at m = 512: it grows as m becomes smaller.
sizes = [512, 256, 128, 64, 32, 16, 8]
distance = [np.linalg.norm(in_groups(m) - of_one) for m in sizes]
figure, axes = plt.subplots()
axes.plot(sizes, distance, "o-", color="#d55e00")
axes.set_xscale("log", base=2)
axes.set_xticks(sizes, [str(m) for m in sizes])
axes.set_xlabel("m, examples that share a perturbation")
axes.set_ylabel("distance after 20 updates")
plt.show()
assert np.all(np.diff(distance) > 0)

# %% [markdown]
# The trainer has it as a setting, which gives the same numbers on 1 and on 8 devices:
#
#     sam-jax train --config=cifar10_sam --config.method_group_size=64
#
# Methods that draw noise (`random_sam`, `bsam`, `esam`) draw the same on all devices. If
# each has its own perturbation, the keyword
# `group_key=jax.random.fold_in(key, jax.lax.axis_index("data"))` of the update gives each
# its own noise. [Recipes](../recipes_devices.md) covers devices without `check_vma`, `jax.pmap`, and
# two devices that compute one gradient each. [The guide to pods](../cloud_tpu.md) covers
# several hosts.
