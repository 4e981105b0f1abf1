"""Image files as arrays of bytes: decoded by Pillow, once."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import io
import logging
import math
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sam_jax import checks, errors, storage
from sam_jax.data import cache

FORMATS = "JPEG, PNG, WebP, BMP or GIF"
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_GREY = ("1", "L", "LA", "La")  # and the modes of 16 bits, such as "I;16"
_RESIZE = ("squash", "crop", "pad")
_MOST_PIXELS = 4096  # per side
_READ_AT_ONCE = 32  # files
_ORIENTATION = 0x0112  # in EXIF data, and the way back
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class How:
    """How image files become images of one size.

    Attributes:
        image_size: side in pixels; None takes images as they are, all of one size.
        resize: to a square by ``"squash"`` (both sides are scaled), ``"crop"`` (scaled
            until it covers the square, the middle is taken) or ``"pad"`` (scaled until
            it fits, the rest is black).
        skip_broken: whether files that are not images are left out.
        cache_dir: where decoded images wait for the next run; empty is off.
        middle: share of each side that ``"crop"`` takes, the rest is left out.
    """

    image_size: int | None = None
    resize: str = "squash"
    skip_broken: bool = False
    cache_dir: str = cache.FOLDER
    middle: float = 1.0

    def check(self) -> None:
        """Refuses what is out of range.

        Raises:
            BadValue: naming the attribute.
        """
        checks.one_of("resize", self.resize, _RESIZE)
        checks.between("middle", self.middle, 0.01, 1)
        if self.middle != 1 and self.resize != "crop":
            raise checks.BadValue(f"middle={self.middle} needs resize=crop")
        if self.image_size is None:
            if self.resize != "squash":
                raise checks.BadValue(f"resize={self.resize} needs image_size")
            return
        checks.integer("image_size", self.image_size, 1)
        if self.image_size > _MOST_PIXELS:
            raise checks.BadValue(
                f"image_size must be at most {_MOST_PIXELS}, got {self.image_size}"
            )


def read(files: Sequence[str], where: str, how: How) -> tuple[np.ndarray, np.ndarray]:
    """Reads image files into one array, or what an earlier run has decoded of them.

    Args:
        files: their paths.
        where: the folder or table that lists them.
        how: sizes, broken files, the cache.

    Returns:
        The images, uint8 [N, H, W, C], and which of the files they are, int64 [N]: all
        but the broken ones. C is 1 if all are grey, else 3.

    Raises:
        UserError: naming the file that cannot be read, or two of different sizes.
    """
    if importlib.util.find_spec("PIL") is None:
        raise errors.UserError(f"{where} needs Pillow: pip install pillow")
    kept = cache.Cache.of(how.cache_dir, where, f"{how.image_size} {how.resize}")
    listing = cache.listing(files)
    found = kept.load(listing)
    if found is None:
        with contextlib.closing(_decoded(files, where, how)) as decoded:
            found = _collect(files, where, decoded)
        kept.store(listing, *found)
    images, broken = found
    if broken:
        first = next(iter(broken.values()))
        if not how.skip_broken:
            raise errors.UserError(f"{first}; {REMEDY}")
        _log.warning(
            f"{len(broken)} of {len(files)} files of {where} cannot be read as "
            f"images, and are left out: {first}" + ", ..." * (len(broken) > 1)
        )
    return images, np.setdiff1d(np.arange(len(files)), list(broken))


REMEDY = "fix or delete it, or leave such files out with skip_broken=True"


# (height, width) of an image -> top, left, height and width of a box in it.
Box = Callable[[int, int], Sequence[float]]


def decode(
    path: str, how: How, content: bytes | None = None, box: Box | None = None
) -> np.ndarray:
    """The image of a file.

    The orientation in its EXIF data is applied. Of an animation it is the first frame.
    Transparent parts become white. Of 16 bits the upper eight are taken; CMYK and other
    colours become RGB, without colour profiles. Scaling is bilinear, with
    antialiasing.

    Args:
        path: of the file.
        how: the size.
        content: of the file, where it was read already.
        box: what to cut out and scale to the size, in place of ``how.resize``.

    Returns:
        uint8 [H, W, C], with one channel if the file is grey, else three.

    Raises:
        UserError: what is wrong with the file.
    """
    from PIL import Image, ImageOps, WebPImagePlugin

    del WebPImagePlugin  # known to Image.open once it is imported
    with (
        errors.translated(f"{path} cannot be read", REMEDY),
        (
            storage.path(path).open("rb") if content is None else io.BytesIO(content)
        ) as file,
        _opened(file, path) as image,
    ):
        size, (width, height) = how.image_size, image.size
        cut = None if box is None else box(height, width)
        top, left, tall, wide = (0, 0, height, width) if cut is None else cut
        if size is not None:  # a large JPEG in a part of the time
            least = (2 * size * width / wide, 2 * size * height / tall)
            image.draft(None, (math.ceil(least[0]), math.ceil(least[1])))
        image.load()
        turned = 1
        with contextlib.suppress(Exception):  # of damaged EXIF data, which say nothing
            turned = image.getexif().get(_ORIENTATION, 1)
        drafted = image.size
        image = _as_bytes(image)
        if size is not None and cut is not None:
            x, y = drafted[0] / width, drafted[1] / height
            edges = (x * left, y * top, x * (left + wide), y * (top + tall))
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=edges)
        if turned in _TURNS:
            image = image.transpose(_TURNS[turned])
        if size is not None and cut is None:
            fit = {
                "squash": Image.Image.resize,
                "crop": functools.partial(ImageOps.fit, bleed=(1 - how.middle) / 2),
            }
            scale = fit.get(how.resize, ImageOps.pad)
            image = scale(image, (size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)


def _opened(file: Any, path: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=_PILLOW_FORMATS)
    except UnidentifiedImageError as error:  # its text has an address in memory
        raise errors.UserError(
            f"{path} cannot be read: it is not a {FORMATS} file, or a damaged one; "
            f"{REMEDY}"
        ) from error
    # Pillow only warns of it, and refuses twice as many.
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        image.close()
        raise errors.UserError(
            f"{path} cannot be read: its {image.width}x{image.height} pixels could be "
            f"a decompression bomb; {REMEDY}"
        )
    return image


def _as_bytes(image: Any) -> Any:
    """In mode ``L`` if it is grey, else ``RGB``."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "L" if _is_grey(image) else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _is_grey(image: Any) -> bool:
    if image.mode != "P":
        return image.mode in _GREY
    palette = image.getpalette("RGB")
    return palette[::3] == palette[1::3] == palette[2::3]


def _collect(
    files: Sequence[str], where: str, decoded: Iterable[np.ndarray | str]
) -> tuple[np.ndarray, dict[int, str]]:
    """The images in one array, and what is wrong with each of the broken files."""
    images, of, broken = np.empty((0, 0, 0, 1), np.uint8), 0, {}
    first = ""
    for path, found in zip(files, decoded, strict=True):
        if isinstance(found, str):
            broken[of + len(broken)] = found
            continue
        if of == 0:
            first = path
            images = _empty((len(files), *found.shape))
        if found.shape[:2] != images.shape[1:3]:
            sides = ["x".join(map(str, x.shape[1::-1])) for x in (images[0], found)]
            raise errors.UserError(
                f"images of {where} have different sizes ({first} {sides[0]}, "
                f"{path} {sides[1]}): give one for all, such as image_size=64"
            )
        if found.shape[-1] > images.shape[-1]:  # the first one in colour
            images = np.repeat(images, 3, axis=3)
        images[of] = found
        of += 1
    return images[:of], broken


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise errors.UserError(
            f"{shape[0]} images of {shape[2]}x{shape[1]} do not fit in memory: give a "
            "smaller image_size, or fewer images"
        ) from error


def _decoded(files: Sequence[str], where: str, how: How) -> Generator[np.ndarray | str]:
    """Of each file, in order, the image or what is wrong with it."""
    parts = [files[k : k + _READ_AT_ONCE] for k in range(0, len(files), _READ_AT_ONCE)]
    _log.info(f"decoding {len(files)} images of {where}")
    with (
        _strict_warnings(),
        _progress(len(files)) as advance,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        try:
            for found in pool.map(lambda part: [attempt(f, how) for f in part], parts):
                advance(len(found))
                yield from found
        finally:  # after an error or Ctrl-C the rest is left
            pool.shutdown(cancel_futures=True)


def attempt(
    path: str, how: How, content: bytes | None = None, box: Box | None = None
) -> np.ndarray | str:
    """As `decode`, but of a broken file that may be left out what is wrong with it."""
    try:
        return decode(path, how, content, box)
    except errors.UserError as error:
        cause = error.__cause__
        # That a file may not be read, or a disk fails, says nothing about the image.
        if not how.skip_broken or (isinstance(cause, OSError) and cause.errno):
            raise
        return str(error).removesuffix(f"; {REMEDY}")


@contextlib.contextmanager
def _strict_warnings() -> Iterator[None]:
    """Of what Pillow warns of, only the size of an image matters."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and nothing elsewhere."""
    from rich import console, progress

    shown = sys.stderr.isatty()
    screen = console.Console(stderr=True)
    with progress.Progress(console=screen, transient=True, disable=not shown) as bar:
        task = bar.add_task("decoding images", total=total)
        yield lambda done: bar.advance(task, done)
