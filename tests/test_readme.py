"""What the README and the pages say is true: code runs, links lead somewhere."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import methods

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# The site's build, which is strict, follows the links of the other pages.
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_code_blocks_run_and_train():
    def loss(params, batch):
        return jnp.mean((batch @ params["w"]) ** 2)

    params = {"w": jnp.ones(3)}
    batch = jnp.eye(3)
    namespace = {"loss": loss, "params": params}
    (first,) = blocks("README.md")
    again, second = blocks("docs/library.md")
    assert first == again
    exec(first, namespace)
    moved, state = namespace["step"](params, namespace["state"], batch)
    assert loss(moved, batch) < loss(params, batch)
    seen = namespace["sam_jax"].diagnostics(state)
    np.testing.assert_allclose(seen["perturbation_norm"], 0.05, rtol=1e-6)

    exec(second, namespace)
    namespace["state"] = namespace["tx"].init(params)
    grads = {"w": jnp.array([-1.0, 2.0, 3.0])}
    _, state = namespace["tx"].update(
        grads, namespace["state"], params, grad_fn=lambda _: grads
    )
    seen = namespace["sam_jax"].diagnostics(state)
    np.testing.assert_allclose(seen["perturbation_norm"], 0.001 * 3**0.5, rtol=1e-6)


def test_is_short():
    assert len(README.splitlines()) <= 150


def test_counts_the_methods():
    count = len(methods.names())
    assert f"**Library**: {count} methods" in README
    assert f"[All {count} methods]" in README


def test_says_of_every_method_where_its_values_come_from():
    page = (ROOT / "docs" / "trainer.md").read_text()
    rows = re.findall(r"^\|.*\|(.*)\|$", page.partition("`:name` takes |")[2], re.M)
    rows = [re.findall(r"`(\w+)`", row) for row in rows[1:5]]
    assert sorted(name for row in rows for name in row) == sorted(methods.names())
    theirs = len(rows[0])
    assert f"For {theirs} of them that sets" in README
    assert f"the other {len(methods.names()) - theirs} are listed" in README


def anchors(page):
    """Those of its headings, as Git hosts and MkDocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", x.lower()).replace(" ", "-") for x in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]*)\)", text):
        if not re.match(r"https?:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_card_and_file_named_exists():
    named = re.findall(
        r"(?:configs|experiments|sam_jax|tests)/[\w/]+\.(?:py|png|json|svg)",
        README,
    )
    assert named
    for path in named:
        assert (ROOT / path).exists(), path
