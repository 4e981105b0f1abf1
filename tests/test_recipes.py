"""Every recipe runs as it is written, and trains."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = {
    path.name: path.read_text()
    for path in [*DOCS.glob("recipes*.md"), DOCS / "other_loops.md"]
}
BLOCK = re.compile(r"^## (.+?)\n(?:(?!^## ).)*?```python\n(.*?)```", re.M | re.S)
BLOCKS = {
    f"{page}: {title}": code
    for page, text in PAGES.items()
    for title, code in BLOCK.findall(text)
}
# What not every environment has, by the package to install.
FRAMEWORKS = {"keras": "keras", "kauldron": "kauldron", "tunix": "google-tunix"}
HEAVY = [t for t, code in BLOCKS.items() if re.search("keras|kauldron|tunix", code)]
slow = pytest.mark.slow("imports a framework")


def test_every_heading_has_a_block():
    assert len(BLOCKS) == sum(len(re.findall("^## ", p, re.M)) for p in PAGES.values())
    assert len(BLOCKS) == sum(page.count("```python") for page in PAGES.values())
    assert len(HEAVY) == len(FRAMEWORKS)


def test_gradients_of_an_nnx_model_see_the_same_dropout():
    """Radius zero is the base optimizer."""
    (code,) = (code for code in BLOCKS.values() if "nnx.Dropout" in code)
    losses = []
    for method in ("sam_jax.sam(rho=0.0)", "optax.identity()"):
        namespace = {}
        own = code.partition("print(")[0].replace("sam_jax.sam(rho=0.05)", method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(own, namespace)
        losses.append(namespace["losses"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize(
    "title",
    [pytest.param(t, marks=slow) if t in HEAVY else t for t in BLOCKS],
)
def test_runs_and_trains(title):
    for module, package in FRAMEWORKS.items():
        found = importlib.util.find_spec(module)
        if re.search(rf"(import|from) {module}\b", BLOCKS[title]) and not found:
            pytest.skip(f"pip install {package}")
    if title in HEAVY:  # Keras may have been imported here, for TensorFlow
        check = "assert losses[-1] < 0.7 * losses[0]"
        command = [sys.executable, "-W", "ignore", "-c", f"{BLOCKS[title]}\n{check}"]
        subprocess.run(command, cwd=DOCS.parent, check=True, timeout=300)
        return
    namespace = {}
    with warnings.catch_warnings():
        # What other packages deprecate at import says nothing about ours.
        warnings.simplefilter("ignore")
        exec(BLOCKS[title], namespace)
    losses = namespace["losses"]
    assert losses[-1] < 0.7 * losses[0]


def test_both_gradients_of_sampa_cost_a_device_one():
    [code] = [c for title, c in BLOCKS.items() if "SAMPa" in title]
    there = {}
    exec(code, there)
    loss, of, tx = there["loss"], there["of"], sam_jax.sampa(0.02, rho=0.1)
    params = jnp.zeros(32)
    state = tx.init(params)
    for t in range(19):  # the same on one device
        grad_fn = lambda w, t=t: jax.grad(loss)(w, of(t))  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(there["params"], params, rtol=1e-4, atol=1e-5)

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    x = jnp.ones((2, 4096, 32))  # so many examples that the weights do not count
    pair = x, x @ params
    one = flops(jax.grad(loss), params, (pair[0][0], pair[1][0]))
    args = there["params"], there["state"], there["grads"], pair
    assert flops(there["step"], *args) <= 1.15 * one
