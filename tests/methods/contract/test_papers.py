"""What stands beside a method's code: signature, docstring, test file, fragment."""

import importlib.util
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import optax

import sam_jax
from sam_jax import methods
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.contract.test_calls import NUMBERS, documented_gradients
from tests.methods.traits import has_test_file, sgd

ROOT = pathlib.Path(__file__).parents[3]


@every_method()
def test_signature(name):
    first, *rest = (
        p for p in cases.parameters(name).values() if p.name != "learning_rate"
    )
    assert first.name == "rho"
    assert {"eps", "mask"} <= {p.name for p in rest}
    assert all(p.kind is p.KEYWORD_ONLY for p in rest)
    assert all(p.default is not p.empty for p in (first, *rest))
    assert "rho" in cases.schedulable(name)


@every_method()
def test_has_a_test_file(name):
    assert has_test_file(name), (
        f"tests/methods/test_{name}.py is missing: the closed form, identities, and "
        "TRAITS where it differs from the usual method (tests/methods/traits.py)"
    )


@every_method()
def test_is_exported(name):
    assert getattr(sam_jax, name, None) is methods.factory(name), (
        f"sam_jax/__init__.py does not export {name}"
    )
    assert methods.factory(name).__name__ == name


@every_method()
def test_docstring_has_every_section(name):
    doc = inspect.getdoc(methods.factory(name))
    summary, blank, *_ = [*doc.splitlines(), "", ""]
    assert summary.endswith(".") and not blank, "the docstring begins with one line"
    sections = ["Args", "Returns", "Raises", "Example", "References"]
    sections.append("Differences from the authors' code")
    starts = [doc.find(f"\n{section}:\n") for section in sections]
    for section, at in zip(sections, starts, strict=True):
        assert at > 0, f"the docstring has no section '{section}:'"
    assert starts == sorted(starts), f"the docstring's sections are not {sections}"
    body = {
        section: doc[start:end]
        for section, start, end in zip(
            sections, starts, [*starts[1:], len(doc)], strict=True
        )
    }
    for lacks, found in {
        "a formula, '.. math::', before its sections": ".. math::" in doc[: starts[0]],
        "'ValueError: ' in Raises": "ValueError: " in body["Raises"],
        "'>>> ' in Example": ">>> " in body["Example"],
        "the year of the paper in References": re.search(
            r"\b(19|20)\d\d\b(?!\.\d)", body["References"]
        ),
        "<https://arxiv.org/abs/...> in References": re.search(
            r"<https://arxiv\.org/abs/\d{4}\.\d{5}>", body["References"]
        ),
        **{
            f"'{parameter}: ' in Args": re.search(
                rf"^    {parameter}: \S", body["Args"], re.M
            )
            for parameter in cases.parameters(name)
        },
    }.items():
        assert found, f"the docstring lacks {lacks}"


@every_method()
def test_docstring_tells_cost_state_and_use(name):
    doc = inspect.getdoc(methods.factory(name))
    lead = doc[: doc.find("\nArgs:\n")]
    use = r"^Use it (?:when|where|for|as|if|to|on|in|with)\b"
    assert re.search(use, lead, re.M), (
        "the docstring says when to use it, before Args, in a paragraph that begins "
        "'Use it where ...'"
    )
    documented_gradients(name)
    documented_state(lead)


def documented_state(lead):
    """Copies of the parameters and booleans per parameter that a docstring names."""
    flat = " ".join(lead.split())
    if "no state but counters and diagnostics" in flat:
        return 0, 0
    found = re.search(r"; state: ([^.]*)", flat)
    assert found, "the docstring says '; state: one copy of the parameters'"
    copies = re.search(r"\b(one|two|three) cop", found[1])
    booleans = re.search(r"\bone boolean per parameter", found[1])
    return NUMBERS[copies[1].capitalize()] if copies else 0, int(bool(booleans))


@every_method()
def test_state_has_the_documented_size(name):
    lead, _, _ = inspect.getdoc(methods.factory(name)).partition("\nArgs:\n")
    copies, booleans = documented_state(lead)
    params = {"matrix": jnp.ones((100, 30)), "vector": jnp.ones(50)}
    state = jax.eval_shape(cases.method(name).init, params)
    documented = 3050 * (4 * copies + booleans)
    if "base" in cases.parameters(name):  # its state is no concern of the method's
        base = jax.eval_shape(sgd(0.1).init, params)
        documented += sum(x.size * 4 for x in jax.tree.leaves(base))
    actual = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert documented <= actual <= documented + 100, (
        f"the state has {actual / 3050:.1f} bytes per parameter, the docstring says "
        f"{copies} copies of four bytes and {booleans} booleans"
    )


@every_method()
def test_fragment_configures_the_method(name):
    path = ROOT / "configs" / "methods" / f"{name}.py"
    assert path.exists(), (
        f"configs/methods/{name}.py is missing: get_config() with the paper's values"
    )
    spec = importlib.util.spec_from_file_location(f"fragment_{name}", path)
    fragment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fragment)
    assert re.search(r"\b(19|20)\d\d\b", fragment.__doc__), "says whose values they are"
    coefficients = dict(fragment.get_config())
    assert coefficients.pop("name", name) == name
    assert "rho" in coefficients
    required = {"learning_rate": 0.1} if cases.is_optimizer(name) else {}
    tx = methods.factory(name)(**required, **coefficients)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
