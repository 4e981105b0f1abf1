"""Decoded images between runs, so that a folder of files is decoded once."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Self

import numpy as np

from sam_jax import errors

FOLDER = "~/.cache/sam_jax/images"

_VERSION = "1"  # of what a file is decoded to

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Cache:
    """What was decoded of a list of files, in one file that is replaced as a whole.

    A newer state of the same folder takes the place of the older one.

    Attributes:
        path: of the file; None keeps nothing.
    """

    path: pathlib.Path | None

    @classmethod
    def of(cls, cache_dir: str, where: str, settings: str) -> Self:
        """That of a folder or table of images."""
        if not cache_dir:
            return cls(None)
        folder = pathlib.Path(os.path.expanduser(cache_dir)).resolve()
        source = pathlib.Path(where).resolve()
        if source.is_dir() and folder.is_relative_to(source):
            raise errors.UserError(
                f"cache_dir={cache_dir} is inside {where}, which only you write "
                "to: give another folder, or an empty one for no cache"
            )
        digest = hashlib.sha256(f"{_VERSION}\n{settings}\n".encode())
        digest.update(os.fsencode(source))
        return cls(folder / f"{source.stem}-{digest.hexdigest()[:16]}.npz")

    def load(self, listing: str) -> tuple[np.ndarray, dict[int, str]] | None:
        """What was stored under this listing.

        Returns:
            The images, and what is wrong with files by their number; None if nothing
            was stored, another state of the files, or it is damaged.
        """
        if self.path is None:
            return None
        with (
            contextlib.suppress(errors.UserError),
            errors.translated(f"{self.path} is damaged", "it is written again"),
            self.path.open("rb") as file,  # which NumPy leaves open if it is damaged
            np.load(file, allow_pickle=False) as stored,
        ):
            if str(stored["listing"]) == listing:
                broken = zip(stored["broken"].tolist(), stored["reasons"], strict=True)
                return stored["images"], {index: str(why) for index, why in broken}
        return None

    def store(self, listing: str, images: np.ndarray, broken: dict[int, str]) -> None:
        """Keeps what was decoded; that it cannot be written is logged as a warning.

        Args:
            listing: see `listing`.
            images: uint8 [N, H, W, C].
            broken: what is wrong with files by their number.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=self.path.parent, prefix=f".{self.path.stem}-"
            ) as own:
                temporary = pathlib.Path(own) / "images.npz"
                np.savez(
                    temporary,
                    listing=np.array(listing),
                    images=images,
                    broken=np.array(list(broken), np.int64),
                    reasons=np.array(list(broken.values()), np.str_),
                )
                os.replace(temporary, self.path)
        except OSError as error:
            _log.warning(
                f"decoded images cannot be kept in {self.path.parent} "
                f"({errors.one_line(error)}): the next run decodes them again; give "
                "another cache_dir, or an empty one for no cache"
            )


def listing(files: Sequence[str]) -> str:
    """Digest of the names, sizes and times of files; their contents are not read.

    The time of the last change of the file's entry is part of it, so that a file that
    was replaced and given its old time is noticed.
    """
    digest = hashlib.sha256()
    try:
        for path in files:
            stat = os.stat(path)
            state = (path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            digest.update(repr(state).encode())
    except OSError as error:
        raise errors.UserError(
            f"{error.filename} cannot be read ({error.strerror}): leave the files as "
            "they are while they are read"
        ) from error
    return digest.hexdigest()
