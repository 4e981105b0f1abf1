"""Many runs from one command: all combinations of some settings, over seeds.

Each run is an ordinary one in a folder of its own, so that the same command continues:
what is finished is left alone, what was interrupted continues.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sam_jax import errors, locks, methods, page, storage
from sam_jax.train import (
    cards,
    coefficients,
    comparison,
    comparison_files,
    environment,
    loop,
    optimizer,
    report,
    settings,
    shared,
    typed,
    workdir,
)

METHOD = "method.name"
ALL = "all"  # its value for every method of the package, and the baseline
_LONGEST = 200  # bytes of a folder's name; file systems take 255


class Axis(NamedTuple):
    """A setting and the values that it takes in turn, as texts."""

    key: str
    values: Sequence[str]

    @classmethod
    def read(cls, text: str) -> "Axis":
        """From a command line.

        Example:
            >>> Axis.read("schedule.boundaries=(3,5),(4,6)").values
            ['(3,5)', '(4,6)']
        """
        key, equals, listed = text.removeprefix("config.").partition("=")
        values = _split(listed)
        if not (key and equals) or "" in values or len(set(values)) < len(values):
            raise errors.UserError(
                f"--set={text} must be a setting and different values with commas "
                "between them, such as --set=method.rho=0.05,0.1"
            )
        if key == "seed":
            raise errors.UserError(
                "--set=seed: give --seeds=N, and --config.seed=FIRST if not 0"
            )
        if key == METHOD and ALL in values:  # beside the user's own
            every = ["sgd", *methods.names()]
            values = [*every, *(v for v in values if v not in (ALL, *every))]
        return cls(key, values)


def _split(text: str) -> list[str]:
    """At the commas that no bracket holds."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def planned(
    card: str | None, axes: Sequence[Axis], seeds: int, changes: Sequence[str] = ()
) -> dict[str, settings.Settings]:
    """The runs of a sweep; all their settings are read here.

    A coefficient that a method does not have is left out for it, if another method of
    the sweep has it. The value ``3x`` is three times that of the card.

    Args:
        card: as of `cards.load`.
        axes: settings to combine.
        seeds: runs of each combination; the first has the card's seed.
        changes: of the settings of all runs, such as ``--config.epochs=3``.

    Returns:
        Name of the folder -> settings, in the order of the runs.

    Example:
        >>> rho = Axis.read("method.rho=1x,2x")
        >>> list(planned("configs/digits_sam.py", [rho], 1))
        ['sam_rho0.1_seed0', 'sam_rho0.2_seed0']
    """
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise errors.UserError(f"--set={key} is given twice: give all values once")
    of_method = next((axis.values for axis in axes if axis.key == METHOD), [None])
    suffixed = [
        card if None in (x, card) else f"{str(card).partition(':')[0]}:{x}"
        for x in of_method
    ]
    bases = {each: cards.load(each, *changes) for each in suffixed}
    others = [axis for axis in axes if axis.key != METHOD]
    known = {each: _coefficients(base) for each, base in bases.items()}
    anywhere = set[str]().union(*known.values())
    found: dict[str, settings.Settings] = {}
    same: dict[str, str] = {}
    for each, base in bases.items():
        mine = [
            axis
            for axis in others
            if axis.key in known[each] or axis.key not in anywhere
        ]
        for values in itertools.product(*(axis.values for axis in mine)):
            chosen = {
                axis.key: _value(axis.key, value, base)
                for axis, value in zip(mine, values, strict=True)
            }
            words = [f"--config.{key}={value}" for key, value in chosen.items()]
            config = cards.load(each, *changes, *words) if words else base
            _refuse_values(config)
            if config.seed + seeds > 2**32:
                raise errors.UserError(
                    f"--seeds={seeds} from config.seed={config.seed} on are beyond "
                    f"{2**32 - 1}: give smaller ones"
                )
            for seed in range(config.seed, config.seed + seeds):
                name = folder_name(config, chosen, seed)
                if name in found:
                    raise errors.UserError(
                        f"two runs of the sweep would have the folder {name}: their "
                        "settings are the same, or have to be named otherwise"
                    )
                found[name] = dataclasses.replace(config, seed=seed)
                makes = _compared(settings.flat_text(found[name]))
                key = json.dumps(makes, sort_keys=True)
                if (other := same.setdefault(key, name)) != name:
                    raise errors.UserError(
                        f"{other} and {name} would be the same run: give each value "
                        "of a setting once, and none that changes no result"
                    )
    return found


def _refuse_values(config: settings.Settings) -> None:
    """Refuses what the method or the optimizer would, before the first run."""
    try:
        optimizer.make_optimizer(config, steps_per_epoch=1000)
    except errors.UserError:
        raise
    except Exception:  # in code of the user's: the run will show it
        return


def _coefficients(config: settings.Settings) -> set[str]:
    return {f"method.{key}" for key in coefficients.parameters(config.method.name)}


def _value(key: str, text: str, base: settings.Settings) -> str:
    """The value of a setting; of a multiple, such as ``3x``, the product."""
    factor = re.fullmatch(r"(\d+\.?\d*|\.\d+)x", text)
    if factor is None:
        return text
    before = settings.flat(typed.plain(base)).get(key)
    if not isinstance(before, int | float) or isinstance(before, bool):
        raise errors.UserError(
            f"--set={key}={text} is a multiple of the card's value, {before!r}, which "
            "is not a number"
        )
    product = float(factor[1]) * before
    if isinstance(before, int) and product.is_integer():
        return str(int(product))
    return f"{product:.12g}"  # 3 times 0.1 is 0.3


def folder_name(config: settings.Settings, chosen: Mapping[str, str], seed: int) -> str:
    """Method, radius, what else the sweep has chosen, and the seed.

    Example:
        >>> folder_name(settings.Settings(), {"learning_rate": "0.3"}, 2)
        'sgd_learning_rate=0.3_seed2'
    """
    method, *front, end = workdir.brief(dataclasses.replace(config, seed=seed))
    method = "sgd" if method == coefficients.BASELINE else method
    others = (
        f"{key.removeprefix('method.')}={value}"
        for key, value in chosen.items()
        if key != "method.rho"
    )
    words = "_".join([re.sub(r".*\.py:", "", method), *front, *others])
    name = re.sub(r"[^\w.=+-]+", "-", words)
    if len(name.encode()) > _LONGEST:
        digest = hashlib.sha256(words.encode()).hexdigest()
        name = f"{name[:40]}_{digest[:16]}"
    return f"{name}_{end}"


def sweep(
    runs: Mapping[str, settings.Settings],
    out: str | os.PathLike[str],
    command: str = "",
    *,
    tuned: bool = False,
    tex: bool = False,
) -> list[comparison.Run]:
    """Trains what is not finished yet, one run after another, and compares all.

    After each run the files of the comparison are written again, at the end a picture
    and a report.

    Args:
        runs: name of the folder -> settings; see `planned`.
        out: folder of the runs and of the comparison.
        command: how to do the same again.
        tuned: see `comparison.grouped`.
        tex: whether to write the table for LaTeX as well.

    Returns:
        The runs; those that failed say why.

    Raises:
        UserError: before the first run, if the folder is something else's, another
            sweep is working in it, a run in it has other settings, or there is no
            validation set to choose by.
        WriteError: if a file cannot be written.
        Stopped: as of `loop.train_and_evaluate`.
    """
    folder, found = storage.path(out), []
    if tuned and not all(config.data.validation for config in runs.values()):
        raise errors.UserError(
            "--tuned chooses by the validation error, and config.data.validation is 0: "
            "hold examples out, for example with --config.data.validation=0.1"
        )
    comparison_files.check_folder(folder)
    with _alone_in(folder):
        for name, config in runs.items():
            _refuse_others(folder / name, config)
        programs, groups = shared.Shared(), []
        for number, (name, config) in enumerate(runs.items(), start=1):
            print(f"[{number}/{len(runs)}] {name}", flush=True)
            found.append(run := trained(folder / name, config, programs))
            if run.last:
                taken = report.duration(run.seconds or 0.0)
                print(f"    test error {run.error('last'):.2f} %, {taken}", flush=True)
            groups = comparison.grouped(found, tuned=tuned)
            notes = {"command": command, "environment": comparison_files.environment()}
            # The table has the chosen ones, the record all.
            every = comparison.grouped(found) if tuned else groups
            comparison_files.write(folder, every, shown=groups, tex=tex, **notes)
        comparison_files.draw(folder, groups, folder.name)
        try:
            page.write(folder / page.REPORT_FILE, groups, folder.name, command)
        except errors.UserError as error:  # such as of several data sets
            print(f"warning: no {page.REPORT_FILE}: {error}", file=sys.stderr)
    return found


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise errors.UserError(
                f"another sweep is working in {folder}{locks.holder(error)}: wait for "
                "it, or give another --out"
            ) from error
        except OSError as error:
            raise errors.UserError(
                f"cannot write to {folder} ({error.strerror}): give another --out"
            ) from error
        yield


def _refuse_others(folder: pathlib.Path, config: settings.Settings) -> None:
    """Refuses the folder of a run with other settings."""
    if not (folder / workdir.CONFIG_FILE).exists():
        return
    before, now = comparison.read_settings(folder), settings.flat_text(config)
    if changed := settings.changed(_compared(before), _compared(now)):
        raise errors.UserError(
            f"{folder} belongs to a run with other settings ({'; '.join(changed)}): "
            "give another --out, or the same settings"
        )


def _compared(flat: dict[str, Any]) -> dict[str, Any]:
    """What makes a run, with its seed."""
    return comparison.compared(flat) | {"seed": flat["seed"]}


def trained(
    folder: pathlib.Path, config: settings.Settings, programs: shared.Shared
) -> comparison.Run:
    """One run, finished already or trained now; one that failed says why."""
    # What is not finished, or damaged, is for the trainer, which tells why.
    with contextlib.suppress(errors.UserError):
        found = comparison.read_run(folder)
        for line in environment.changed(folder, workdir.own_files(config)):
            print(f"warning: {line}", file=sys.stderr)
        return found
    extra = None
    try:
        loop.train_and_evaluate(config, folder, builder=programs.make_run, out=_Bar())
        return comparison.read_run(folder)
    except (errors.WriteError, loop.Stopped, BrokenPipeError):
        raise  # the next run would end likewise
    except loop.Diverged as error:
        failure, extra = str(error), {"diverged": True}
    except errors.UserError as error:
        failure = str(error)
    except Exception as error:  # in code of the user's, or in ours
        traceback.print_exc()
        failure = f"{type(error).__name__}: {errors.one_line(error)}"
    print(f"failed: {failure}", file=sys.stderr)
    about = {"failure": failure, "extra": extra, "folder": folder}
    return comparison.Run(folder.name, settings.flat_text(config), **about)


class _Bar(report.Report):
    """How far a run is, and its warnings."""

    def header(self, fields: Mapping[str, str]) -> None:
        """Nothing."""

    def message(self, message: str) -> None:
        """Nothing."""

    def evaluation(self, *args: Any, **named: Any) -> None:
        """Nothing."""

    def summary(self, *args: Any, **named: Any) -> None:
        """Nothing but the end of the bar."""
        self._stop()
