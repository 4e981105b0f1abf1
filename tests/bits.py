"""Hashes of the weights after 20 updates of every method, to compare two versions.

    python -m tests.bits > before.json   # in one clone
    python -m tests.bits > after.json    # in another, on the same machine
    diff before.json after.json

A change that is not meant to change a number leaves every line as it is: on a small
tree, and with the digits card (one epoch of 20 steps, on one device).
"""

import hashlib
import json
import pathlib
import runpy
import sys
import tempfile

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from sam_jax import methods
from sam_jax.train import loop, settings
from tests.methods import problems
from tests.methods.contract import cases

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "epochs": 1,
    "data.validation": 0,  # 1,297 images: 20 batches of 64
    "mesh.data": 1,
    "learning_rate": 0.02,
    "log_every_steps": 20,
}


def main() -> None:
    """Prints ``{"tree sam": hash, "digits sam": hash, ...}``."""
    chosen = sys.argv[1:] or ["none", *methods.names()]
    found = {}
    for name in chosen:
        found |= {f"tree {name}": small_tree(name), f"digits {name}": digits(name)}
        print(name, file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2, sort_keys=True))


def small_tree(name: str) -> str:
    """20 updates of a matrix and a scalar."""
    tx = optax.sgd(0.1) if name == "none" else cases.optimizer(name)
    batch = (problems.batch(),)
    params, _ = problems.train(
        tx, problems.network_loss, problems.network(), batch, steps=20
    )
    return digest(params)


def digits(name: str) -> str:
    """20 updates of the digits card."""
    card = runpy.run_path(str(ROOT / "configs" / "digits_sam.py"))
    config = card["get_config"](name)
    config.update_from_flattened_dict(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        stdout, sys.stdout = sys.stdout, sys.stderr
        try:
            loop.train_and_evaluate(settings.read(config), folder)
        finally:
            sys.stdout = stdout
        [path] = pathlib.Path(folder).rglob("20/state")
        with ocp.PyTreeCheckpointer() as checkpointer:
            return digest(checkpointer.restore(path)["params"])


def digest(params: optax.Params) -> str:
    """SHA-256 of all leaves, by their path."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()[:16]


if __name__ == "__main__":
    main()
