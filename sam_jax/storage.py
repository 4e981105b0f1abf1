"""Where a user's files are: a path in the file system, or an address in a store.

`path` makes one of what a user wrote. Of ``runs/a`` it is a `pathlib.Path`; of an
address such as ``gs://bucket/run`` a `Remote`, which has the methods of one that this
package uses. What cannot be the same there: locks (`sam_jax.locks`), and files that
grow (`Growing`).
"""

import contextlib
import errno
import fnmatch
import io
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from sam_jax import errors

# What to install for a scheme; others are of fsspec, which says what it needs.
_PACKAGES = {
    "gs": 'pip install "sam_jax[gcs]"',
    "s3": "pip install s3fs",
    "az": "pip install adlfs",
    "hf": "pip install huggingface_hub",
}
_SCHEME = re.compile(r"((?i:gs|gcs|s3|az|hf)(?=:)|[A-Za-z][A-Za-z0-9+.-]+(?=:/)):(/*)")
_GROWS_SECONDS = 60  # after which others see more of a file that grows in a store


class StorageError(OSError, errors.UserError):
    """A store has failed a request, after the retries of its client."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be reached ({self.strerror}): check the name, "
            "your rights to it and the network, then start the same command again"
        )


class Stat(NamedTuple):
    """Size in bytes, and what distinguishes an object from the one before it."""

    st_size: int
    version: str


def path(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a user means.

    Args:
        text: of the file system, which may begin with ``~``, or an address,
            ``SCHEME://...``; a path is left alone.

    Returns:
        The path; of an address a `Remote`, which is none for ``isinstance``.

    Raises:
        UserError: for an address with a wrong number of slashes or without a bucket, of
            an unknown scheme, or of one whose package is not installed.

    Example:
        >>> path("runs/a"), path("memory://bucket/run/").parent
        (PosixPath('runs/a'), Remote('memory://bucket'))
        >>> path("gs:/bucket/run")
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: gs:/bucket/run is not an address: two slashes follow \
a scheme, as in gs://bucket/run
    """
    if isinstance(text, Remote):
        return cast(pathlib.Path, text)
    found = _SCHEME.match(shown := os.fspath(text))
    if found is None:
        # A shell expands no ~ in --workdir=~/runs; that of a path is a name.
        return pathlib.Path(os.path.expanduser(text) if text is shown else text)
    scheme, rest = found[1].lower(), shown[found.end() :]
    if (found[2] != "//" and scheme != "file") or not rest:
        raise errors.UserError(
            f"{shown} is not an address: two slashes follow a scheme, as in "
            f"{scheme}://{rest or 'bucket/run'}"
        )
    if scheme == "file":
        return pathlib.Path(f"/{rest}")
    _class(scheme, shown)
    return cast(pathlib.Path, Remote(f"{scheme}://{rest}"))


def _class(scheme: str, shown: str) -> type[Any]:
    """The file system of a scheme."""
    try:
        import fsspec

        if scheme == "gcs":  # fsspec's own name, which checkpoints do not know
            raise ValueError
        return fsspec.get_filesystem_class(scheme)
    except ValueError:
        message = errors.unknown(
            "scheme", f"{scheme}://", (f"{x}://" for x in _PACKAGES)
        )
        raise errors.UserError(f"{shown}: {message}") from None
    except ImportError as error:
        remedy = _PACKAGES.get(scheme, errors.one_line(error))
        raise errors.UserError(f"{shown} needs a package: {remedy}") from error


class Remote(pathlib.PurePosixPath):
    """An address, as a path; what of `pathlib.Path` this package uses.

    A folder is there as long as something is in it: making one does nothing. A file is
    written as a whole, so that readers see all of the old or all of the new content.

    Raises:
        StorageError: by all methods, if the store does not answer or refuses.

    Example:
        >>> folder = Remote("memory://doctest/run")
        >>> (folder / "a.txt").write_bytes(b"text")
        >>> [file.name for file in folder.iterdir()], folder.is_dir()
        (['a.txt'], True)
    """

    _listed: dict[str, Any] | None = None

    def __str__(self) -> str:
        return re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    @property
    def scheme(self) -> str:
        """Such as ``gs``."""
        return self.parts[0].removesuffix(":")

    @property
    def _key(self) -> str:
        return self._system._strip_protocol(str(self))

    @property
    def _system(self) -> Any:
        import fsspec.config

        # Objects come and go by other clients than this one, such as TensorStore.
        fsspec.config.conf.setdefault(self.scheme, {})["use_listings_cache"] = False
        _without_tensorflow()
        return fsspec.filesystem(self.scheme)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[Any]:
        """The file system, whose errors are those of Python or `StorageError`."""
        try:
            yield self._system
        except (FileNotFoundError, FileExistsError, IsADirectoryError) as error:
            code = error.errno or _CODES[type(error)]
            raise type(error)(code, os.strerror(code), str(self)) from error
        except Exception as error:  # each store has classes of its own
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # of the disk here
            said = errors.one_line(error) or type(error).__name__
            raise StorageError(errno.EHOSTUNREACH, said, str(self)) from error

    def _info(self) -> dict[str, Any] | None:
        if self._listed is not None:
            return self._listed
        with contextlib.suppress(FileNotFoundError), self._asked() as system:
            return system.info(self._key)
        return None

    def exists(self) -> bool:
        """Whether it is a file, or a folder with something in it."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Whether it is a file."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Whether something is in it."""
        return (self._info() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def stat(self) -> Stat:
        """Size and version."""
        info = self._info()
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        names = ("generation", "etag", "ETag", "mtime", "LastModified", "created")
        version = next((info[name] for name in names if info.get(name)), "")
        return Stat(int(info.get("size") or 0), str(version))

    def iterdir(self) -> Iterator["Remote"]:
        """What is in the folder; nothing if it is not there."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError), self._asked() as system:
            found = system.ls(self._key, detail=True)
        for info in found:
            name = info["name"].rstrip("/")
            if name != self._key:  # a mark of the folder itself
                yield self._of(name.rpartition("/")[2], info)

    def glob(self, pattern: str) -> Iterator["Remote"]:
        """What matches, as ``*/config.json`` does."""
        first, _, rest = pattern.partition("/")
        for each in self.iterdir():
            if fnmatch.fnmatchcase(each.name, first):
                yield from each.glob(rest) if rest else [each]

    def rglob(self, pattern: str) -> Iterator["Remote"]:
        """The files in it and in its folders."""
        found: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError), self._asked() as system:
            found = system.find(self._key, detail=True)
        for name, info in found.items():
            each = self._of(name.removeprefix(f"{self._key}/"), info)
            if fnmatch.fnmatchcase(each.name, pattern):
                yield each

    def _of(self, name: str, info: dict[str, Any]) -> "Remote":
        found = self / name
        found._listed = info
        return found

    def read_bytes(self) -> bytes:
        """The content."""
        with self._asked() as system:
            return system.cat_file(self._key)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str) -> io.BytesIO:
        """The content, to be read."""
        if mode != "rb":
            raise ValueError(f"only 'rb' opens what is in a store, got {mode!r}")
        return io.BytesIO(self.read_bytes())

    def write_bytes(self, data: bytes, *, new: bool = False) -> None:
        """Writes all of it, or nothing.

        Args:
            data: the content.
            new: only where nothing is yet; of several who try, one succeeds.

        Raises:
            FileExistsError: if it is to be new, and is there.
        """
        with self._asked() as system:
            try:
                system.pipe_file(self._key, data, mode="create" if new else "overwrite")
            except FileNotFoundError as error:
                raise OSError("there is no such bucket") from error

    def touch(self) -> None:
        """Makes an empty file, unless it is there."""
        if not self.exists():
            self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False, version: str = "") -> None:
        """Deletes the file; on ``gs://`` only if it is still of this version."""
        suppressed = [FileNotFoundError] if missing_ok else []
        with contextlib.suppress(*suppressed), self._asked() as system:
            key = self._key
            if version and self.scheme == "gs":
                system, key = type(system)(version_aware=True), f"{key}#{version}"
            system.rm_file(key)

    def rename(self, target: "Remote") -> "Remote":
        """Copies a folder, then deletes it; a kill in between leaves both."""
        with self._asked() as system:
            system.copy(self._key, target._key, recursive=True)
            system.rm(self._key, recursive=True)
        return target

    def check_bucket(self) -> None:
        """Refuses a bucket whose metadata the account may not read.

        Orbax asks, when it deletes a checkpoint: too late for a run.

        Raises:
            UserError: naming the role that is missing.
        """
        bucket = Remote(f"{self.scheme}://{self.parts[1]}")
        if "id" not in (bucket._info() or {}):
            raise errors.UserError(
                f"the account may not read the metadata of {bucket} "
                "(storage.buckets.get), which deleting old checkpoints needs: also "
                "give it roles/storage.legacyBucketReader"
            )

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing."""

    def rmdir(self) -> None:
        """Does nothing."""

    def absolute(self) -> "Remote":
        """Itself, as `resolve` and `expanduser`."""
        return self

    resolve = expanduser = absolute


_CODES: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
}


def _without_tensorflow() -> None:
    """Lets Orbax use the same client with and without TensorFlow installed.

    Its paths, those of etils, take TensorFlow's otherwise, which has other settings.
    """
    if os.environ.setdefault("EPATH_USE_TF", "0") == "0":
        known = getattr(sys.modules.get("etils.epath.gpath"), "_is_tf_installed", None)
        if known is not None:  # the answer is kept from the first path on
            known.cache_clear()


def fetch(copies: Mapping[Remote, pathlib.Path]) -> None:
    """Copies files to the disk, many at a time.

    Args:
        copies: files of one store -> where each is to be.

    Raises:
        StorageError: if one cannot be read.
        OSError: if the disk is full.
    """
    if copies:
        with next(iter(copies))._asked() as system:
            system.get([x._key for x in copies], [str(x) for x in copies.values()])


class Growing:
    """A file that grows, such as a log: a local one, which stands for an object.

    Objects do not grow. `publish` writes the whole object again.

    Args:
        target: the file; on a disk it is written itself.
        content: of what is there, to continue from.

    Attributes:
        local: where to append.
    """

    def __init__(self, target: pathlib.Path, content: bytes = b"") -> None:
        self.local, self._target, self._own = target, target, None
        if isinstance(target, Remote):
            self._own = tempfile.TemporaryDirectory()
            self.local = pathlib.Path(self._own.name) / target.name
            self.local.write_bytes(content)
            self._since = time.monotonic()
            self._version = target.stat() if target.exists() else None
            self._sent = content

    def grown(self) -> None:
        """Publishes periodically; a failure is retried later."""
        if self._own and time.monotonic() - self._since > _GROWS_SECONDS:
            with contextlib.suppress(StorageError):
                self.publish()

    def publish(self) -> None:
        """Makes the target what the local file is.

        Raises:
            StorageError: if it cannot be written, or somebody else has written it.
        """
        if self._own:
            self._since = time.monotonic()
            there = self._target.stat() if self._target.exists() else None
            # What was sent may have arrived although the answer was lost.
            if self._version != there and not (
                there and self._target.read_bytes() == self._sent
            ):
                said = "another program has written or deleted it meanwhile"
                raise StorageError(errno.EBUSY, said, str(self._target))
            self._version = there
            self._sent = self.local.read_bytes()
            self._target.write_bytes(self._sent)
            self._version = self._target.stat()

    def close(self) -> None:
        """Publishes, and forgets the local file."""
        if self._own:
            try:
                self.publish()
            finally:
                self._own.cleanup()
