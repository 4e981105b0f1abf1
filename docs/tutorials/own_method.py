# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own method, from blocks to the survey
#
# Every variant of SAM answers two questions: which way to climb, and which direction to
# descend given the two gradients. `sam_jax.sharpness_aware(ascent, combine)` takes the two
# answers. This page builds a method, tests it against the contract that every method of the
# package keeps, and trains it next to SGD and SAM.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %% [markdown]
# ## From blocks
#
# The ascent is an Optax transformation from the gradient to the displacement of the weights.
# SAM's is `normalize` and `scale`. Ours climbs by the sign of each gradient, which is the
# steepest way when no single weight may move further than $\rho$. It descends along a mix of
# the two gradients.

# %%
# %%writefile my.py
import jax
import jax.numpy as jnp
import optax

import sam_jax


def sign_sam(rho: optax.ScalarOrSchedule = 0.01, alpha: float = 0.8):
    """Climbs by signs, descends along (1 - alpha) g + alpha g_perturbed."""
    signs = optax.stateless(lambda grads, params: jax.tree.map(jnp.sign, grads))
    ascent = optax.chain(signs, sam_jax.scale(rho))

    def combine(grads, perturbed, count):
        return jax.tree.map(lambda g, p: (1 - alpha) * g + alpha * p, grads, perturbed)

    return sam_jax.sharpness_aware(ascent, combine)


# %% [markdown]
# ## Does it keep what methods promise?
#
# `sam_jax.testing.check_method` runs the contract of the package: dtypes stay, donated
# buffers are not held, a zero gradient stays finite, devices agree, wrong coefficients
# raise errors, and so on. It names every promise that is not kept. `exact=False` says that at
# radius zero our mix of two equal gradients need not have the bits of the base optimizer:

# %%
import sys

sys.path.insert(0, ".")
import my

from sam_jax import testing

try:
    testing.check_method(my.sign_sam, exact=False)
    refused = ""
except AssertionError as error:
    refused = str(error)
print(refused)
assert "bad_coefficients_are_refused" in refused and "alpha" in refused

# %% [markdown]
# `alpha=-1` was accepted silently. One line at the top of the function refuses it:

# %%
import importlib
import pathlib

source = pathlib.Path("my.py").read_text()
first = "    signs = optax.stateless("
check = '    sam_jax.checks.between("alpha", alpha, 0, 1)\n'
pathlib.Path("my.py").write_text(source.replace(first, check + first))
importlib.reload(my)
testing.check_method(my.sign_sam, exact=False)
print(f"all {len(testing.CHECKS)} promises are kept")

# %% [markdown]
# Other keywords declare intended differences: `unused_gradient=True` if the method ignores
# the caller's gradient, `perturbed_call=0` if it takes further gradients after the one at
# the perturbed weights, `base=None` if it is not a base optimizer at radius zero
# (`sam_jax.testing.Traits`). In your own tests, one call of `check_method` is a whole test.
#
# ## The survey
#
# In the trainer, `my.py:sign_sam` is the name of the method, and its parameters are
# settings. One command trains it next to others, each at two radii, and shows the radius
# that was best on validation. Digits with 40 % wrong labels, a small network:

# %% language="bash"
# python -m sam_jax sweep --config=digits_noisy_sam --config.model.name=mlp \
#     --config.model.width=64 --config.epochs=20 --config.sharpness.every=None \
#     --config.report=off --set=method.name=sgd,sam,my.py:sign_sam \
#     --set=method.rho=0.01,0.1 --seeds=1 --tuned --out=runs/survey

# %%
import csv

with open("runs/survey/results.csv") as file:
    rows = list(csv.DictReader(file))
assert len(rows) == 3 and not any(row["failure"] for row in rows)
names = {row["method.name"] for row in rows}
print(sorted(names))
assert "my.py:sign_sam" in names

# %% [markdown]
# One seed decides nothing: `--seeds=5` gives intervals and paired tests, and
# `--set=method.name=all,my.py:sign_sam` puts it next to every method of the package. A method
# that deserves a name of its own can join the package: the
# contributing guide lists what it needs, and
# `python -m docs.new_method NAME` says what is missing.
