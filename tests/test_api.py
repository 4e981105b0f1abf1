"""The public interface is what the last version promised, and clients see its types."""

import json
import pathlib
import shutil
import subprocess

import pytest

from tests import api

ROOT = pathlib.Path(__file__).parents[1]
SNAPSHOT = api.FILE.relative_to(ROOT).as_posix()


def git(*command):
    done = subprocess.run(
        ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_snapshot_is_up_to_date():
    advice = "run python -m tests.api, and say in CHANGELOG.md what has changed"
    assert api.FILE.read_text().splitlines() == api.lines(), advice


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is not a clone")
def test_a_change_of_it_is_in_the_changelog():
    changed = git("diff", "--name-only", "HEAD")
    if SNAPSHOT not in changed:
        (commit,) = git("log", "-1", "--format=%H", "--", SNAPSHOT)
        changed = git("show", "--name-only", "--format=", commit)
    assert "CHANGELOG.md" in changed, f"{SNAPSHOT} has changed, CHANGELOG.md has not"


CLIENT = """
import jax
import optax
import sam_jax


def grad_fn(params: jax.Array) -> jax.Array:  # JAX's own functions have no types
    return 2 * params


def train(params: jax.Array) -> None:
    tx = optax.chain(sam_jax.sam(0.05), sam_jax.pmean("devices"), optax.sgd(0.1))
    grads, state = grad_fn(params), tx.init(params)
    updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
    print(updates, sam_jax.diagnostics(state)["perturbation_norm"])
    radius = optax.constant_schedule(0.1)
    method = sam_jax.every_k(sam_jax.vasso(radius, lam="1/t", theta=0.4), 5)
    print(method.update(grads, method.init(params), params, grad_fn=grad_fn))
    reveal_type(method)
    sam_jax.random_sam(noise="filtr")
    sam_jax.sam(rho="0.05")
    sam_jax.sam(radius=0.05)
"""


@pytest.mark.slow("starts pyright")
@pytest.mark.skipif(not shutil.which("pyright"), reason="pyright is not installed")
def test_clients_see_types(tmp_path):
    """Mistakes are errors, everything else is known."""
    (tmp_path / "client.py").write_text(CLIENT)
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    settings |= {"reportMissingTypeStubs": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["pyright", "--outputjson", "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = CLIENT.splitlines()
    found = {
        lines[each["range"]["start"]["line"]].strip(): each.get("rule", each["message"])
        for each in json.loads(done.stdout)["generalDiagnostics"]
    }
    assert found == {
        "reveal_type(method)": 'Type of "method" is "GradientTransformationExtraArgs"',
        'sam_jax.random_sam(noise="filtr")': "reportArgumentType",
        'sam_jax.sam(rho="0.05")': "reportArgumentType",
        "sam_jax.sam(radius=0.05)": "reportCallIssue",
    }
