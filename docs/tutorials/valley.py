# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where SAM cannot converge
#
# Gradient descent with a small step size converges. SAM with a constant radius need not: its
# perturbation keeps the length $\rho$ however small the gradient is. This page shows the
# smallest example, then the flat bottom that the same effect leads to, and last a check of
# your own settings against the published theorems.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train,theory]"

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import sam_jax
from sam_jax.theory import conditions, families, problems

jax.config.update("jax_enable_x64", True)


def descended(problem, method, step_size, steps, start):
    """The weights after every step."""
    tx = optax.chain(method, optax.sgd(step_size))
    grad_fn = jax.grad(problem)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = jnp.asarray(start, float)
    _, path = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return np.concatenate([start[None], np.asarray(path)])


# %% [markdown]
# ## A parabola is enough
#
# On $f(x) = x^2 / 2$ SAM steps to $x - t\,(x + \rho\, \mathrm{sign}\, x)$. Close to 0 that
# overshoots, for every $\rho > 0$. It ends in a cycle between two points at the distance
# $t\rho / (2 - t)$ from the minimum (Khanh et al. 2024, Example 3.1).

# %%
t, rho = 0.3, 0.1
predicted = t * rho / (2 - t)
methods = {
    "gradient descent": optax.identity(),
    "SAM, constant radius": sam_jax.sam(rho),
    "SAM, radius 0.1 / (k + 1)": sam_jax.sam(lambda k: rho / (k + 1.0)),
    "USAM, constant radius": sam_jax.usam(rho),
}
parabola = {
    name: np.abs(descended(lambda x: x**2 / 2, tx, t, 60, 1.0))
    for name, tx in methods.items()
}
ends = {name: path[-1] for name, path in parabola.items()}
print(f"predicted {predicted:.6f}, SAM {ends['SAM, constant radius']:.6f}")
np.testing.assert_allclose(ends["SAM, constant radius"], predicted, rtol=1e-6)
assert ends["gradient descent"] < 1e-6 and ends["USAM, constant radius"] < 1e-6
assert ends["SAM, radius 0.1 / (k + 1)"] < predicted / 20

# %%
# Distance to the minimum: SAM with a constant radius stops at the predicted distance.
figure, axes = plt.subplots()
for name, path in parabola.items():
    axes.plot(path, label=name)
axes.axhline(predicted, color="black", linewidth=1, linestyle="-")
axes.text(60, predicted * 1.3, r"$t\rho/(2-t)$", ha="right")
axes.set_yscale("log")
axes.set_ylim(1e-7, 2)
axes.set_xlabel("step")
axes.set_ylabel("distance to the minimum")
axes.legend(loc="lower left", fontsize=9)
plt.show()

# %% [markdown]
# Two remedies follow. A radius that goes to 0, together with the step size (Khanh et al.,
# Theorem 3.2), or no normalization: USAM's perturbation shrinks with the gradient. The price is the other
# effect of a constant radius.
#
# ## The valley
#
# All points with $xy = 1$ are minima of $f(x, y) = (xy - 1)^2$. They differ in sharpness: the
# trace of the Hessian is $2(x^2 + y^2)$, smallest at $(1, 1)$. Gradient descent stops at the
# first minimum it reaches. SAM, which never comes to rest, drifts along the valley to the
# flattest one (Si and Yun 2023, Figure 1).


# %%
def valley(w):
    return (w[0] * w[1] - 1) ** 2


names = list(methods)[:3]
paths = {
    name: descended(valley, methods[name], 0.01, 30_000, [3.0, 0.2]) for name in names
}
for name, path in paths.items():
    x, y = path[-1]
    print(f"{name:26} ends at ({x:.2f}, {y:.2f}), trace {2 * (x**2 + y**2):.2f}")
last = {name: path[-1] for name, path in paths.items()}
np.testing.assert_allclose(last["SAM, constant radius"], 1.0, atol=0.02)
assert last["gradient descent"][0] > 2.5

# %%
# The valley xy = 1: gradient descent stops at once, SAM drifts to its flattest point.
figure, axes = plt.subplots()
x, y = np.meshgrid(np.linspace(0.4, 3.3, 90), np.linspace(0.1, 1.5, 90))
levels = [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3]
axes.contour(x, y, (x * y - 1) ** 2, levels, colors="#bbbbbb", linewidths=0.8)
for marker, (name, path) in zip("sov", paths.items(), strict=True):
    (line,) = axes.plot(*path[::100].T, label=name)
    axes.plot(*path[-1], marker, color=line.get_color(), markersize=9, alpha=0.7)
axes.plot(1, 1, "k+", markersize=12, label="flattest minimum")
axes.set_xlabel("x")
axes.set_ylabel("y")
axes.legend(loc="upper right", fontsize=9)
plt.show()

# %% [markdown]
# So a constant radius buys the drift to flatter minima and pays with a floor; a decreasing
# radius buys convergence and loses the drift. Neither is a mistake. The claims of the
# [laboratory](../laboratory.md) measure both, with every constant.
#
# ## Which theorem covers my settings?
#
# State what you run and what you know of the function. Every theorem is then checked
# against it, condition by condition. First the parabola:

# %%
parabola_problem = problems.quadratic([1.0], [1.0])


def applicable(setting):
    """The properties that are proved for the setting."""
    found = conditions.properties(conditions.assess(setting))
    for number in sorted(found):
        print(f"  {conditions.PROPERTIES[number]}")
    return found


steady, shrinking = families.Constant, families.Power
runs = {
    "SAM, both constant": ("sam", steady(t), steady(rho)),
    "SAM, both shrink": ("sam", shrinking(t, 1.0), shrinking(rho, 1.0)),
    "USAM, both constant": ("usam", steady(t), steady(rho)),
}
proved = {}
for name, (method, step_size, radius) in runs.items():
    print(name)
    setting = conditions.on(
        parabola_problem, method=method, step_size=step_size, radius=radius
    )
    proved[name] = len(applicable(setting))
assert proved["SAM, both constant"] == 0
assert 0 < proved["SAM, both shrink"] <= proved["USAM, both constant"]

# %% [markdown]
# Now a network: bounded below, not convex, mini-batches, momentum and a cosine, as in most
# recipes. Nothing is proved, and the check says why. The theorem on SAM with decreasing
# steps, for example:

# %%
network = conditions.Setting(
    method="sam",
    step_size=families.Cosine(0.1, 1000, 0.0),
    radius=families.Constant(0.05),
    stochastic=True,
    others=("momentum 0.9",),
    convex=False,
    bounded_below=True,
)
verdicts = conditions.assess(network)
applying = [v for v in verdicts if v.applies]
print(f"{len(applying)} of {len(verdicts)} theorems apply")
for condition in verdicts[0].failures:
    print(f"  {verdicts[0].theorem.name} needs: {condition.text} ({condition.reason})")
assert not applying

# %% [markdown]
# In a clone of the repository, one command checks a run card. It lists every
# theorem that almost applies, with the flags that would satisfy it:
#
#     python -m experiments.theory check --config=configs/cifar10_sam.py
