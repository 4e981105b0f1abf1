"""Checkpoints of a run: the last ones and the best, written in the background.

The only module that knows Orbax's checkpoints. On disk,
``<workdir>/checkpoints/<step>`` holds the state (``state``), what the run had reached
(``metrics``) and the digests of both (`sam_jax.train.digests`). One that is damaged is
renamed to ``damaged-<step>``, and the run continues from the one before.

If the run has several processes, all of them make the same calls; each writes its part
of the arrays, and process 0 the rest, once all parts are there.
"""

import collections
import contextlib
import json
import logging
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from sam_jax import errors, storage

with errors.needing("train"):
    from orbax.checkpoint import v1 as ocp

from sam_jax.train import agreement, digests, files, hosts, settings, stored

_COMMITTED = "commit_success.txt"  # by which Orbax knows, in a store, what is complete


class Checkpoints(files.Closing):
    """The checkpoints in ``<workdir>/checkpoints``; a context manager.

    The last ones and the best one are kept, older ones are deleted once a newer one is
    complete. A process killed at any moment leaves every complete checkpoint as it was;
    what it had half written is ignored and cleaned up by the next one.

    The last and the best are verified here. Damaged ones are set aside, if there is
    another one to continue from.

    Args:
        workdir: the folder of the run; made if it does not exist.
        keep: how many of the last ones, and which others.

    Attributes:
        lost: what was set aside, a line for each, on process 0.

    Raises:
        UserError: if the folder cannot be written, holds something unreadable, or
            nothing but damaged checkpoints.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> state = {"w": jnp.arange(3.0), "step": jnp.int32(7)}
        >>> with Checkpoints(pathlib.Path(tempfile.mkdtemp())) as checkpoints:
        ...     checkpoints.save(7, state, {"best": 0.9}, is_best=True)
        ...     restored, progress = checkpoints.restore(state)
        >>> restored["w"], progress
        (Array([0., 1., 2.], dtype=float32), {'best': 0.9})
    """

    def __init__(
        self, workdir: pathlib.Path, keep: settings.Checkpoint | None = None
    ) -> None:
        self.directory = storage.path(workdir).absolute() / "checkpoints"
        self._keep = keep or settings.Checkpoint()
        _silence_orbax()
        with agreement.agreed():
            files.make_folder(self.directory)
            if isinstance(self.directory, storage.Remote):
                self.directory.check_bucket()
            try:
                # While it is there and says this, the folder is the one that was
                # opened, and nobody else has opened it since.
                self._mark = self.directory / f".open-{jax.process_index()}"
                self._own = secrets.token_hex(8).encode()
                self._mark.touch()
                self._mark.unlink()
            except OSError as error:
                raise errors.UserError(
                    f"cannot write to {self.directory} ({error.strerror}): give "
                    "another --workdir"
                ) from error
        self._saving: int | None = None
        self._pending: ocp.AsyncResponse[bool] | None = None
        self._verified: set[int] = set()
        self.lost: list[str] = []
        with agreement.agreed():
            if hosts.is_first():  # All is read, which one process can do for all.
                self._set_damaged_aside()
        with agreement.agreed():
            self._checkpointer = self._open()
        self._check_seen_alike()
        self._mark.write_bytes(self._own)

    def latest_step(self) -> int | None:
        """The step of the newest save begun, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def steps(self) -> list[int]:
        """The steps of all, first to last."""
        return [each.step for each in self._checkpointer.checkpoints]

    def best_step(self) -> int | None:
        """The step of the newest save with ``is_best``, or None."""
        return _best_step(self._checkpointer.checkpoints)

    def save(
        self, step: int, state: Any, progress: dict[str, Any], *, is_best: bool
    ) -> None:
        """Begins to save; first waits for the save before to end.

        Returns as soon as the arrays have left the device: ``state`` may be donated.
        The last saved step again is not written again: it is the same state.

        Args:
            step: updates done; not below ``latest_step()``.
            state: a pytree of arrays and typed PRNG keys.
            progress: plain JSON that ``restore`` gives back.
            is_best: keep this one until another one is the best.

        Raises:
            UserError: if this save, or the one before, could not be written; the
                checkpoints that were complete are still there.
            TypeError: if ``progress`` cannot be JSON.
            ValueError: if ``step`` is below ``latest_step()``.
        """
        self.wait()
        latest = self.latest_step()
        if latest == step:
            return
        if latest is not None and step < latest:
            raise ValueError(f"step {step} is before the last saved one, {latest}")
        self._check_there()
        # A copy as JSON keeps it: later changes by the caller do not reach it.
        record = {"step": step, "is_best": is_best, "progress": progress}
        record = json.loads(files.to_json(record))
        self._saving = step
        with self._failures():
            self._pending = self._checkpointer.save_checkpointables_async(
                step, {"state": stored.without_empty(state)}, metrics=record, force=True
            )

    def restore(
        self, abstract_state: Any, step: int | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        """Reads a checkpoint.

        Args:
            abstract_state: the state expected, with ``jax.ShapeDtypeStruct`` (or
                arrays) as leaves; their shardings are those of the result, whatever
                they were when the checkpoint was written.
            step: which one; the last by default.

        Returns:
            The state, the same bits as saved, and ``progress``; None if nothing is
            saved.

        Raises:
            UserError: if the checkpoint is damaged, belongs to another model or method,
                is none at all, or does not exist. Nothing is deleted.
        """
        self.wait()
        found = {each.step: each for each in self._checkpointer.checkpoints}
        if step is None and not found:
            return None
        step = max(found) if step is None else step
        with agreement.agreed():
            if step not in found:
                raise errors.UserError(
                    f"no checkpoint of step {step} in {self.directory}: "
                    f"there are {sorted(found) or 'none'}"
                )
            folder = self.directory / str(step)
            if hosts.is_first() and step not in self._verified:
                digests.check(folder)
            metadata = self._checkpointer.checkpointables_metadata(step).metadata
            expected = stored.as_stored(abstract_state, metadata["state"])
            stored.check_compatible(folder, metadata["state"], expected)
        expected = jax.tree.map(stored.abstract, expected)
        restored = self._checkpointer.load_checkpointables(
            step, {"state": stored.without_empty(expected)}
        )["state"]
        restored = stored.with_empty(expected, restored)
        record: Any = found[step].metrics
        progress = files.from_json(json.dumps(record["progress"]))
        state = stored.completed(abstract_state, restored, metadata["state"])
        return state, progress

    def wait(self) -> None:
        """Waits until the last save is complete; raises UserError if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._failures():
                pending.result()
                if hosts.is_first():
                    files.sync(self.directory)

    def close(self) -> None:
        """Waits as ``wait`` does, and gives the resources back."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # what failed was said by the wait
                self._checkpointer.close()
            if self._is_there():
                self._mark.unlink()
            elif (
                not self._mark.exists()
            ):  # a save that was on its way has made the folder again
                for half in self.directory.glob("*.orbax-checkpoint-tmp"):
                    shutil.rmtree(half, ignore_errors=True)
                with contextlib.suppress(OSError):  # what is not empty stays
                    self.directory.rmdir()
                    self.directory.parent.rmdir()

    def _open(self) -> ocp.training.Checkpointer:
        # Orbax copies its options deeply: a bound method would bring a copy of self.
        finalization = ocp.options.AsyncOptions(
            post_finalization_callback=lambda: self._write_digests()
        )
        try:
            with files.reading(self.directory):
                checkpointer = ocp.training.Checkpointer(
                    str(self.directory),
                    context=ocp.Context(async_options=finalization),
                    preservation_policy=_Kept(self._keep),
                    cleanup_tmp_directories=True,
                )
        except errors.UserError:
            raise
        except Exception as error:  # Orbax's own notes in a folder may be anything
            raise errors.UserError(
                f"a checkpoint in {self.directory} is damaged ({_brief(error)}): move "
                "it away, or give another --workdir"
            ) from error
        # Orbax would ask whether the run is to stop, for its own statistics and in the
        # background; that moves the point which `interrupt.Preemption` waits for.
        checkpointer._manager.reached_preemption = lambda step: False
        return checkpointer

    def _set_damaged_aside(self) -> None:
        """Verifies the last, the best and the records of all."""
        damaged: dict[pathlib.Path, digests.DamagedError] = {}
        needed = {"last", "best"}
        for step in reversed(kept(self.directory.parent)):
            folder = self.directory / str(step)
            try:
                is_best = digests.record(folder)["is_best"]
                uses = {"last", "best"} if is_best else {"last"}
                if uses & needed:
                    digests.check(folder)
                    self._verified.add(step)
                needed -= uses
            except digests.DamagedError as error:
                damaged[folder] = error
            else:
                if isinstance(folder, storage.Remote):
                    # Orbax deletes what has none, such as a run that was copied there.
                    (folder / _COMMITTED).touch()
        last = max(self._verified, default=-1)
        for folder, error in damaged.items():
            if not self._verified:
                raise errors.UserError(
                    f"{error}, and there is no other one: move it away to start again, "
                    "or give another --workdir"
                )
            name = f"damaged-{folder.name}"
            while (aside := self.directory / name).exists():
                name += "-again"
            with files.writing(aside):
                folder.rename(aside)
            on = (
                f"; the run continues from step {last}"
                if int(folder.name) > last
                else ""
            )
            self.lost.append(f"{error}: it is now {aside}{on}")

    def _check_seen_alike(self) -> None:
        # File systems may show late what another host, or a run before, has written.
        seen = self._seen()
        for _ in range(hosts.SEEN_SECONDS):
            if len(seen) == 1:
                return
            time.sleep(1)
            self._checkpointer.reload()
            seen = self._seen()
        raise agreement.Refused(
            f"the processes see different checkpoints in {self.directory} "
            f"({' and '.join(sorted(seen))}): give a --workdir in a file system that "
            "shows all hosts the same"
        )

    def _seen(self) -> set[str]:
        """The steps that the processes see, of which there should be one list."""
        steps = [each.step for each in self._checkpointer.checkpoints]
        return set(agreement.exchange(json.dumps(steps)))

    def _write_digests(self) -> None:
        # Runs in the background just before Orbax renames the folder to its last name
        # (or, on an object store, marks it as complete); on process 0 alone, and after
        # all processes have written.
        temporary = self.directory.glob(f"{self._saving}.*")
        folder = next(temporary, self.directory / str(self._saving))
        self._check_there()
        digests.write(folder)

    def _is_there(self) -> bool:
        try:
            return self._mark.read_bytes() == self._own
        except FileNotFoundError:
            return False

    def _check_there(self) -> None:
        if not self._is_there():
            raise errors.WriteError(
                f"{self.directory} was deleted or renamed while the run went on, or "
                "another process has it now; put it back, then start the same command "
                "again"
            )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._pending = None
            # Orbax forgets the older checkpoints when it begins to save: look again.
            # It would wait for other processes, and these do not come here.
            self._check_there()
            if not hosts.several():
                with contextlib.suppress(errors.UserError):  # for the same reason
                    self._checkpointer = self._open()
            raise errors.WriteError(
                f"could not save step {self._saving} to {self.directory} "
                f"({_brief(error)}): the checkpoints before it are kept; make room or "
                "fix the folder, then start again"
            ) from error


def kept(workdir: pathlib.Path) -> list[int]:
    """The steps of a run's checkpoints, first to last, damaged ones too."""
    steps = []
    for path in (workdir / "checkpoints").glob("*"):
        if path.name.isdecimal() and _is_complete(path):
            steps.append(step := int(path.name))
            if path.name != str(step):  # Orbax would overlook it
                raise errors.UserError(f"checkpoint {path}: rename it back to {step}")
    return sorted(steps)


def _is_complete(folder: pathlib.Path) -> bool:
    """In a store, where nothing is renamed, what is written last says so."""
    return not isinstance(folder, storage.Remote) or (folder / digests.FILE).exists()


def read(workdir: pathlib.Path, step: int, expected: dict[str, Any]) -> dict[str, Any]:
    """Reads some fields of a saved state; nothing is written.

    Args:
        workdir: the folder of the run.
        step: one of `kept`.
        expected: field of the state -> its shapes and dtypes.

    Returns:
        The fields, on the first device, whatever devices they were saved from.
    """
    _silence_orbax()
    folder = (workdir / "checkpoints" / str(step)).absolute()
    try:
        digests.record(folder)
        digests.check(folder)
    except digests.DamagedError as error:
        raise errors.UserError(
            f"{error}: start the run's command once more, which continues from the one "
            f"before, or take another step of {', '.join(map(str, kept(workdir)))}"
        ) from error
    metadata: Any = ocp.checkpointables_metadata(str(folder)).metadata
    saved = {name: metadata["state"].get(name) for name in expected}
    # In the order of a dict's leaves.
    fields = collections.namedtuple("Fields", sorted(expected))
    whole = fields(**expected)
    wanted = stored.as_stored(whole, saved)
    stored.check_compatible(folder, saved, wanted)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), wanted
    )
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        partial = {"state": stored.without_empty(wanted)}
        found = ocp.load_checkpointables(str(folder), partial)
    found = stored.with_empty(wanted, found["state"])
    leaves = jax.tree.leaves(stored.completed(whole, found, saved))
    return jax.tree.structure(expected).unflatten(leaves)


class _Kept:
    """Which ones stay: the last, the best, and whatever has no record of ours."""

    def __init__(self, keep: settings.Checkpoint) -> None:
        self._keep = keep

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: object
    ) -> list[bool]:
        del context
        steps = sorted(each.step for each in checkpoints)
        stay = {*steps[-self._keep.keep_last :], _best_step(checkpoints)}
        if every := self._keep.keep_every:
            stay |= {step for step in steps if step % every == 0}
        return [each.step in stay or each.metrics is None for each in checkpoints]


def _best_step(checkpoints: Sequence[Any]) -> int | None:
    best = (each.step for each in checkpoints if (each.metrics or {}).get("is_best"))
    return max(best, default=None)


def _brief(error: BaseException) -> str:
    """The first line of an error, without the long paths that TensorStore quotes."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r'"[^"]*":? ?', "", text)[:160]


def _silence_orbax() -> None:
    # Orbax reports each of its steps through absl. A failure it logs once per thread,
    # hundreds of lines for a full disk, and raises as well: the exception will do.
    # Adding the same filter again changes nothing.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname
