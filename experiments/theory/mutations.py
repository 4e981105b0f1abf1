"""Which claims notice that the ascent is reversed, removed or tripled.

A claim that passes with any ascent says nothing about the ascent. Each claim is run in
its short form under each mutation. It notices the mutation if the result of a check
changes, or if the claim breaks. `Claim.survivors` says which mutations may go
unnoticed, and why. A claim that another mutation survives is LOOSE, whatever its
checks say.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import optax

from experiments.theory import catalog
from sam_jax import errors
from sam_jax.methods import numerics
from sam_jax.train import files

# Name -> the factor by which a displacement e is multiplied.
FACTORS: Mapping[str, float] = {"reversed": -1.0, "removed": 0.0, "tripled": 3.0}
FILE = "mutations.json"


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """Every method takes its further gradients at w + factor * e instead of w + e."""
    moved = numerics.moved

    def other(params: optax.Params, displacement: optax.Updates) -> optax.Params:
        return moved(params, optax.tree.scale(FACTORS[name], displacement))

    # A claim traces again what it compiles: no earlier program is used.
    numerics.moved = other
    try:
        yield
    finally:
        numerics.moved = moved


def survived(name: str, mutation: str) -> bool:
    """Whether every check of a claim has the same result with and without a mutation.

    In the short form, and in float64; a claim that breaks has noticed the mutation.
    """
    claim = catalog.load(name)

    def passes() -> list[bool]:
        return [check.passed for check in claim.run(True).checks]

    with jax.enable_x64(True):
        with mutated(mutation):
            try:
                found = passes()
            except Exception:  # such as a rule outside its range: it has noticed
                return False
        return found == passes() if claim.CLAIM.refuted else all(found)


def undeclared(name: str, found: Mapping[str, Any]) -> list[str]:
    """The found mutations that survive a claim without a declared reason."""
    declared = catalog.load(name).CLAIM.survivors
    return [mutation for mutation in found.get(name, []) if mutation not in declared]


def load(out: pathlib.Path) -> dict[str, Any]:
    """Claim -> the mutations that it survived; empty if no results are stored."""
    path = out / FILE
    if not path.exists():
        return {}
    with errors.translated(f"{path} is damaged", "run mutate again"):
        return json.loads(path.read_text())


def run(chosen: Sequence[str], out: pathlib.Path, pool: futures.Executor) -> int:
    """Mutates claims, several at once, and stores which mutations survive.

    Returns:
        0 if the declared mutations survive and no others, else 1.
    """
    found, surprises = load(out), 0
    pairs = {(n, m): pool.submit(survived, n, m) for n in chosen for m in FACTORS}
    for name in chosen:
        found[name] = [m for m in FACTORS if pairs[name, m].result()]
        declared = list(catalog.load(name).CLAIM.survivors)
        surprise = sorted(found[name]) != sorted(declared)
        surprises += surprise
        note = f"  (declared: {', '.join(declared) or 'none'})" if surprise else ""
        print(f"{name:38} survives {', '.join(found[name]) or 'nothing'}{note}")
        kept = {n: found[n] for n in catalog.names() if n in found}
        text = ",\n ".join(f"{json.dumps(n)}: {json.dumps(m)}" for n, m in kept.items())
        files.replace(out / FILE, "{\n " + text + "\n}\n")
    return 1 if surprises else 0
