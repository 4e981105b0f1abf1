"""Shared by the tests of the trainer: the smallest run, and the smallest network."""

import copy
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import jax
import pytest

from sam_jax import data, models
from sam_jax.train import build, config, interrupt, loop, optimizer, settings
from tests.train import ended, runs, steps

BUILD = build.build
BUILT: dict[tuple[str, bool], build.Run] = {}
FINISHED: list[runs.Finished] = []
BOTH: list[ended.Runs] = []


def built(config: settings.Settings, **brought) -> build.Run:
    """A run of the same settings is built, traced and compiled once in a process."""
    config = settings.read(config)
    # Other data are files, which a test may change.
    own = any(x is not None for x in brought.values())
    if own or not config.data.name.startswith("digits"):
        return BUILD(config, **brought)
    key = repr(config), jax.config.jax_enable_x64
    if key not in BUILT:
        BUILT[key] = BUILD(config)
    return BUILT[key]


@pytest.fixture(scope="module", autouse=True)
def built_once() -> Iterator[None]:
    """Not for all of the process, which has other tests as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build", built)
        yield


@pytest.fixture
def built_anew(monkeypatch) -> None:
    """For a test that changes what a run is made of."""
    monkeypatch.setattr(build, "build", BUILD)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., settings.Settings]:
    """``tiny("sam", **{"data.crop": 1})``: 4 steps in each of 3 epochs of an MLP."""

    def make(method: str = "sam", **changes) -> settings.Settings:
        made = config.default_config()
        made.method = config.load_method(method, card="card.py")
        made.update_from_flattened_dict(
            {
                "data.name": "digits",
                "data.validation": 100,
                "data.train_examples": 128,
                "model.name": "mlp",
                "model.width": 8,
                "model.options": {"depth": 1},
                "mesh.data": 1,
                "epochs": 3,
                "batch_size": 32,
                "log_every_steps": 2,
            }
            | changes
        )
        return settings.read(made)

    return make


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    """The data of `tiny`."""
    return data.load("digits", validation=100, train_examples=128)


@pytest.fixture(scope="session")
def net() -> Callable[..., models.Model]:
    """``net(dropout)``: two dense layers with BatchNorm, ReLU and dropout between."""
    return steps.net


@pytest.fixture(scope="module")
def finished(built_once, tiny, tmp_path_factory) -> runs.Finished:
    """A run with label noise, augmentation and averages that nothing disturbed.

    Each file has a copy of the one that ended first in this process.
    """
    if not FINISHED:
        noisy = {"data.label_noise": 0.25, "data.crop": 1, "ema_decay": 0.9}
        folder = tmp_path_factory.mktemp("first")
        FINISHED.append(runs.Finished(tiny("sam", **noisy), folder))
    copied = copy.copy(FINISHED[0])
    copied.folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(FINISHED[0].folder, copied.folder)
    return copied


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory) -> ended.Runs:
    """Read, or copied, and left as they are; made once in this process.

    Not of the session: such a fixture is made before one of the module, such as that
    which says how programs are compiled.
    """
    if BOTH:
        return BOTH[0]
    config, root = tiny("sam"), tmp_path_factory.mktemp("records")
    run, stop = built(config), lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build", lambda *_, **__: run)
        found = loop.train_and_evaluate(config, root / "ended")
        patch.setattr(build, "build", lambda *_, **__: runs.disturbed(run, 6, stop))
        with pytest.raises(loop.Stopped):
            loop.train_and_evaluate(config, root / "stopped")
    BOTH.append(ended.Runs(config, root / "stopped", root / "ended", found))
    return BOTH[0]


@pytest.fixture
def at_root(monkeypatch) -> None:
    """Where `runs.reference` is found."""
    monkeypatch.chdir(runs.ROOT)


@pytest.fixture
def brought(tiny):
    """``brought(model, loss, method, **settings)``: settings that name own parts."""

    def make(model="Net", loss="brier", method="sam", **changes):
        own = {"model.name": runs.reference(model), "loss": runs.reference(loss)}
        own |= {"model.width": None, "model.options": {}}
        return tiny(method, **{**own, **changes})

    return make


@pytest.fixture
def disturb(monkeypatch) -> Callable[..., list[build.Run]]:
    """``disturb(n, action)`` acts in update n of a run; ``disturb()`` no longer.

    It returns a list of the runs that are built from now on.
    """
    real = build.build

    def install(number=None, action=None) -> list[build.Run]:
        built = []

        def disturbed(config, **brought):
            built.append(real(config, **brought))
            return runs.disturbed(built[-1], number, action)

        monkeypatch.setattr(build, "build", disturbed)
        return built

    return install


@pytest.fixture
def trainer(tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``trainer("--config=...")``: starts the real process, in ``tmp_path``."""
    processes = []

    def start(*flags: str, path=str(runs.ROOT)) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sam_jax.main", *flags],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path} | runs.ONE_DEVICE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def chain(tiny):
    """``chain("sam", **changes)``: an optimizer without decay, clipping, momentum."""

    def make(method="none", **changes):
        plain = {
            "weight_decay.value": 0.0,
            "learning_rate": runs.LEARNING_RATE,
            "schedule.name": "constant",
            "optimizer.sgd.momentum": 0.0,
        }
        return optimizer.make_optimizer(
            tiny(method, **(plain | changes)), runs.STEPS_PER_EPOCH
        )

    return make


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """A command that runs here listens to signals for the rest of its process."""
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
