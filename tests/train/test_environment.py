"""The flag for CPUs: set where it is known to help, kept by a run, and harmless."""

import json
import os
import subprocess
import sys

import pytest

from sam_jax import errors
from sam_jax.train import environment, settings, workdir
from tests.train import runs

FAST = f"{environment.FLAG}={environment.FAST}"
OTHER = f"{environment.FLAG}=LIBRARY_FUSION_TYPE_DOT"


@pytest.fixture
def start(monkeypatch):
    """A process that has not imported JAX, on a CPU; its XLA_FLAGS after `set_up`."""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr(environment, "_jaxlib", lambda: "0.10.2")
    usual = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", environment.SWITCH: ""}

    def started(folder=None, **variables):
        for name, text in (usual | variables).items():
            monkeypatch.setenv(name, text)
        environment.set_up(folder)
        return os.environ["XLA_FLAGS"]

    return started


def test_is_added_to_the_flags_of_the_user(start):
    assert start() == FAST
    assert start(XLA_FLAGS="--xla_a=1") == f"--xla_a=1 {FAST}"


@pytest.mark.parametrize("flags", [OTHER, "flags.txt"])
def test_flags_of_the_user_stay(start, flags):
    assert start(XLA_FLAGS=flags) == flags


@pytest.mark.parametrize(
    "variable", [{environment.SWITCH: "0"}, {"JAX_PLATFORMS": "cuda,cpu"}]
)
def test_is_left_out(start, variable):
    assert start(**variable) == ""


@pytest.mark.parametrize("version", [None, "0.10.1", "0.99.0"])
def test_other_versions_of_jaxlib_are_left_alone(start, monkeypatch, version):
    monkeypatch.setattr(environment, "_jaxlib", lambda: version)
    assert start() == ""


def test_a_plugin_of_another_device_is_left_alone(start, monkeypatch):
    assert start(JAX_PLATFORMS="") == FAST
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: name)
    assert start(JAX_PLATFORMS="") == ""


def test_a_compiler_for_tpus_without_one_is_no_device(start, monkeypatch, tmp_path):
    only = {"libtpu": "here"}
    monkeypatch.setattr(environment.importlib.util, "find_spec", only.get)
    assert start(JAX_PLATFORMS="") == FAST
    assert not environment._has_tpu(tmp_path)
    for name, vendor in (("a", "0x8086"), ("b", "0x1ae0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
    assert environment._has_tpu(tmp_path)
    monkeypatch.setattr(environment, "_has_tpu", lambda: True)
    assert start(JAX_PLATFORMS="") == ""


def test_is_too_late_once_jax_is_imported(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", sys)
    assert start() == ""


@pytest.mark.parametrize("given", [{environment.SWITCH: "0"}, {"XLA_FLAGS": OTHER}])
def test_a_run_is_not_read_where_nothing_will_be_added(start, monkeypatch, given):
    monkeypatch.setattr(environment, "_began", lambda folder: pytest.fail("read"))
    start("gs://far/away", **given)


def test_processes_of_tiny_programs_compile_quickly(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", sys)  # it is for those to come
    first, second = environment.TINY
    other = f"{second}0"
    for given, added in [("", f"{first} {second}"), (other, f"{other} {first}")]:
        start(XLA_FLAGS=given)
        environment.for_tiny_programs()
        assert os.environ["XLA_FLAGS"] == added
    for kept in ({environment.SWITCH: "0"}, {"XLA_FLAGS": "flags.txt"}):
        before = start(**kept)
        environment.for_tiny_programs()
        assert os.environ["XLA_FLAGS"] == before


def test_a_run_keeps_what_it_began_with(start, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert start(tmp_path) == FAST, "it was killed before its record"
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    assert start(tmp_path) == ""  # of an earlier version
    for begun, again in [(FAST, FAST), ("", ""), (OTHER, "")]:
        start(XLA_FLAGS=begun, **{environment.SWITCH: "0"})
        assert environment.keep(tmp_path, {}, resumed=False) == []
        assert environment.keep(tmp_path, {}, resumed=True) == []
        assert start(tmp_path) == again
    assert environment.keep(tmp_path, {}, resumed=True) == [
        f"the run started with {OTHER} in XLA_FLAGS and continues with no "
        f"{environment.FLAG}: its numbers are the same to rounding, not bit for bit"
    ]


def test_own_code_that_has_changed_is_said(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "net.py"
    file.write_text("def f(): return 1\n")

    model = settings.Model(f"{file}:f")
    config = settings.Settings(model=model, loss=f"{tmp_path}/gone.py:f")

    def own():
        return workdir.own_files(config)

    assert environment.changed(tmp_path, own()) == [], "a run of an earlier version"
    assert environment.keep(tmp_path, own(), resumed=False) == []
    assert environment.changed(tmp_path, own()) == []
    file.write_text("def f(): return 2\n")
    (line,) = environment.changed(tmp_path, own())
    assert line.startswith(f"{file} has changed since the run in {tmp_path} began")
    assert line in environment.keep(tmp_path, own(), resumed=True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\xff", "[" * 99999),
        *('{"xla_flags": 1}', '{"xla_flags": "", "own_code": 3}'),
    ],
)
def test_a_damaged_record_is_one_sentence(start, tmp_path, text):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / environment.FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError, match=r"environment.json is damaged: delete"):
        start(tmp_path)


GRADIENT = """
import json, sys
from sam_jax.train import environment
environment.set_up()
import jax, jax.numpy as jnp
from sam_jax.models import layers, resnet
jax.config.update("jax_enable_x64", True)

def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)

def gradient(dtype):
    network = resnet.resnet_digits(10, None, layers.Layers(dtype))
    images = jax.random.normal(jax.random.key(0), (64, 8, 8, 1), "float32")
    start = network.init(jax.random.key(1), images, train=False)

    def loss(params, rest, images):
        variables = {"params": params, **rest}
        logits, _ = network.apply(variables, images, True, mutable=["batch_stats"])
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0])

    rest = {"batch_stats": cast(start["batch_stats"], dtype)}
    at = cast(start["params"], dtype), rest, images.astype(dtype)
    return jax.flatten_util.ravel_pytree(jax.jit(jax.grad(loss))(*at))[0]

exact = gradient("float64")
error = jnp.linalg.norm(gradient("float32") - exact) / jnp.linalg.norm(exact)
print(json.dumps([environment.value(), float(error)]))
"""


@pytest.mark.slow("two processes compile a network's gradient in two precisions")
def test_the_gradient_is_as_exact_as_without():
    def error(switch):
        environ = {"XLA_FLAGS": "", "PYTHONPATH": str(runs.ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", GRADIENT],
            env=os.environ | environ | {environment.SWITCH: switch},
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout)

    (flag, fast), (none, plain) = error("1"), error("0")
    assert (flag, none) == (environment.FAST, None)
    assert fast < 2e-6 and fast < 1.5 * plain and plain < 1.5 * fast
