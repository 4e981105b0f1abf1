"""A run that was stopped, one that has ended, and how the first comes to its end."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from sam_jax import errors
from sam_jax.train import loop, settings
from tests.train import runs


@dataclasses.dataclass
class Runs:
    """A run that was stopped in its second epoch of three, and one that ended."""

    config: settings.Settings
    stopped: pathlib.Path
    ended: pathlib.Path
    results: dict

    def copy(self, name, place):
        return shutil.copytree(getattr(self, name), pathlib.Path(place) / "run")


def go_on(both, folder, capsys):
    """The results and what was shown, after checks that the end is the right one."""
    capsys.readouterr()
    found = loop.train_and_evaluate(both.config, folder)
    shown = capsys.readouterr().out
    assert found["last"] == both.results["last"]
    if "are lost" not in shown:
        assert found["best"] == both.results["best"]
    runs.assert_same_state(both.config, folder, both.ended)
    written = json.loads((folder / "results.json").read_text(), parse_constant=fail)
    assert written == found
    return found, shown


def fail(name):
    raise AssertionError(f"{name} is not JSON")


def refused(both, folder):
    with pytest.raises(errors.UserError) as raised:
        loop.train_and_evaluate(both.config, folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def warnings(shown):
    return [line for line in shown.splitlines() if line.startswith("warning:")]
