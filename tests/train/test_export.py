"""Exported networks, read by the libraries of their formats."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import flax.serialization
import jax
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import export
from tests.train import runs

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    config = tiny(**{"model.name": "resnet_digits", "model.options": {}})
    return runs.untrained(config, tmp_path_factory.mktemp("run"))


def by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.key for key in path): np.asarray(x) for path, x in leaves}


def assert_same(arrays, run):
    expected = by_name({"params": run.params, **run.model_state})
    assert "batch_stats" in {name.split(".")[0] for name in expected}
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, strict=True)


def assert_about(text, run):
    about = json.loads(text)
    assert about["model"]["name"] == "resnet_digits"
    assert about["data"]["class_names"] == list(run.class_names)
    assert about["data"]["mean"] == [0.5]


def test_npz(run, tmp_path):
    path = export.export(run, "npz", tmp_path / "x.npz")
    with np.load(path) as found:
        arrays = dict(found)
    assert_about(str(arrays.pop("sam_jax")), run)
    assert_same(arrays, run)


def test_flax(run, tmp_path):
    path = export.export(run, "flax", tmp_path / "x.msgpack")
    assert_same(by_name(flax.serialization.msgpack_restore(path.read_bytes())), run)


def test_safetensors(run, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    path = export.export(run, "safetensors", tmp_path / "x.safetensors")
    with safetensors.safe_open(path, "np") as found:
        assert_about(found.metadata()["sam_jax"], run)
        assert_same({name: found.get_tensor(name) for name in found.keys()}, run)  # noqa: SIM118


def test_a_number_stays_a_number(run, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    small = dataclasses.replace(run, params={"temperature": np.float32(2)})
    path = export.export(small, "safetensors", tmp_path / "x.safetensors")
    with safetensors.safe_open(path, "np") as found:
        assert found.get_tensor("params.temperature").shape == ()


@pytest.mark.parametrize(
    ("to", "package"), [("safetensors", "safetensors"), ("jax.export", "flatbuffers")]
)
def test_without_the_package_of_a_format(run, tmp_path, monkeypatch, to, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.UserError, match=f"pip install {package}"):
        export.export(run, to, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_program_takes_any_number_of_images(run, tmp_path):
    path = export.export(run, "jax.export", tmp_path / "x.jaxexport")
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert {"cpu", "cuda", "tpu"} <= set(program.platforms)
    for images in (IMAGES, IMAGES[:2]):
        found = program.call(images)
        np.testing.assert_allclose(found, run.predict(images), rtol=1e-5, atol=1e-7)


def test_what_is_refused(run, tmp_path):
    with pytest.raises(errors.UserError, match="did you mean 'safetensors'"):
        export.export(run, "safetensor", tmp_path / "x")
    (tmp_path / "x").write_text("mine")
    with pytest.raises(errors.UserError, match="it exists"):
        export.export(run, "npz", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


ELSEWHERE = """
import io, sys
sys.modules["sam_jax"] = None  # cannot be imported
import numpy as np
folder, images = sys.argv[1], np.load(sys.argv[1] + "/images.npy")
import jax, jax.export
with open(folder + "/x.jaxexport", "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
np.save(folder + "/elsewhere.npy", program.call(images))

# The network in NumPy: two layers.
import flax.serialization, json, safetensors
with safetensors.safe_open(folder + "/x.safetensors", "np") as file:
    about = json.loads(file.metadata()["sam_jax"])["data"]
    weights = {name: file.get_tensor(name) for name in file.keys()}
with open(folder + "/x.msgpack", "rb") as file:
    tree = flax.serialization.msgpack_restore(file.read())["params"]
restored = {f"params.{m}.{n}": x for m, part in tree.items() for n, x in part.items()}
x = ((images / 255 - about["mean"]) / about["std"]).reshape(len(images), -1)
for number, found in enumerate([weights, restored, np.load(folder + "/x.npz")]):
    names = [f"params.Dense_{k}.{n}" for k in (0, 1) for n in ("kernel", "bias")]
    w, b, v, c = (found[name] for name in names)
    logits = np.maximum(x @ w + b, 0) @ v + c
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.save(f"{folder}/{number}.npy", odds / odds.sum(1, keepdims=True))
print(*sorted(m for m in sys.modules if m.startswith("sam_jax.")))
"""


@pytest.mark.slow("starts a process")
def test_where_this_package_cannot_be_imported(run, tiny, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    dense = runs.untrained(tiny(), tmp_path)
    export.export(run, "jax.export", tmp_path / "x.jaxexport")
    for name, suffix in {"flax": "msgpack", "npz": "npz"}.items():
        export.export(dense, name, tmp_path / f"x.{suffix}")
    export.export(dense, "safetensors", tmp_path / "x.safetensors")
    environment = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"
    found = np.load(tmp_path / "elsewhere.npy")
    np.testing.assert_allclose(found, run.predict(IMAGES), rtol=1e-5, atol=1e-7)
    for number in range(3):
        found = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_allclose(found, dense.predict(IMAGES), rtol=1e-5, atol=1e-7)
