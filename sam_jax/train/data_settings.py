"""What is trained on, as settings of a run."""

import dataclasses
from typing import Annotated, Literal, Self

from sam_jax.train import ranges, typed
from sam_jax.train.ranges import (
    BelowOne,
    Count,
    Nonnegative,
    Operations,
    Pixels,
    Seed,
    Share,
)


@dataclasses.dataclass(frozen=True)
class Shuffle(typed.Choice):
    """Each training example once per epoch."""

    name = "shuffle"


@dataclasses.dataclass(frozen=True)
class Importance(typed.Choice):
    """With replacement, in proportion to a score; weighted by its inverse."""

    name = "importance"
    # A .npy of numpy.save with a number for each original training example; None: the
    # squared norms of the images.
    scores: str | None = None
    uniform: Share = 0.0  # share of draws that are uniform


Workers = Annotated[int, ranges.within(0, 1000)]
Middle = Annotated[float, ranges.Range("a number in (0, 1]", lambda v: 0 < v <= 1)]
Magnitude = Annotated[
    float, ranges.Range("a number in [0, 30]", lambda v: 0 <= v <= 30)
]
Imbalance = Annotated[
    float, ranges.Range("a number in [1, 1e9]", lambda v: 1 <= v <= 1e9)
]
Examples = Annotated[int, ranges.within(0, 2**31 - 1, "a whole number of examples")]
# A whole number may come as 5000.0, which the data check.
Portion = Annotated[float, ranges.Range("a share in [0, 1)", lambda v: 0 <= v < 2**31)]


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on, and what happens to its images."""

    # folder, csv, npz or tiny_imagenet, at the path; digits, or any set of TFDS.
    name: str = "cifar10"
    path: str | None = None
    image_size: Count | None = None  # of image files; None: as they are
    resize: Literal["squash", "crop", "pad"] = "squash"
    skip_broken: bool = False  # leave out files that are not images
    cache_dir: str = "~/.cache/sam_jax/images"  # of decoded files; empty is off
    mean: tuple[float, ...] | None = None  # per channel, of pixel / 255; None: found
    std: tuple[float, ...] | None = None
    data_dir: str | None = None  # where TFDS prepares it, or gs:// where it has
    manual_dir: str | None = None  # archives fetched by hand
    download: bool = True
    # Read images while the network trains, of a data set that does not fit in memory.
    stream: bool = False
    workers: Workers = 0  # processes that decode a stream; 0: threads
    # Of a stream with resize=crop, the share of the sides that evaluation takes.
    middle: Middle = 1.0
    # Held out from the training set: a share, or a number of examples; 0 is none.
    validation: Examples | Portion = 0.1
    train_examples: Count | None = None  # of the rest; None: all
    # Times as many training examples of the first class as of the last one.
    imbalance: Imbalance = 1.0
    label_noise: BelowOne = 0.0  # share of training labels made wrong
    seed: Seed = 0  # of the split and the label noise
    sampling: Shuffle | Importance = Shuffle()
    crop: Pixels = 0  # pixels of padding of the random crop; 0 is off
    flip: bool = False
    # Each image mirrored in every second epoch, in place of flip; kept in memory twice.
    alternate_flip: bool = False
    cutout: Pixels = 0  # side of the square in pixels; 0 is off
    cutout_probability: Share = 1.0
    # In place of crop: a box of at least this share of the area, scaled; 0 is off.
    resized_crop: Share = 0.0
    randaugment: Operations = 0  # operations on each image; 0 is off
    randaugment_magnitude: Magnitude = 9.0  # up to 30, in torchvision's scales
    # Alphas of what mixes each image with another one of its group; 0 is off.
    mixup: Nonnegative = 0.0
    cutmix: Nonnegative = 0.0

    def elsewhere(self, place: str | None = None, name: str | None = None) -> Self:
        """The same data set at another place, or another one.

        Args:
            place: of the user's own images, or where TFDS has prepared them; None: as
                it is.
            name: of another data set; None: the same.

        Example:
            >>> moved = Data("folder", path="images").elsewhere("/data/images")
            >>> moved.path, Data("cifar10").elsewhere("/data/tfds").data_dir
            ('/data/images', '/data/tfds')
        """
        from sam_jax.data import catalog  # with JAX, which a command line does not need

        found = self
        if name not in (None, self.name):
            found = dataclasses.replace(
                self,
                **{"name": name, "path": None, "mean": None, "std": None},
                # What is done to the training set; true labels are scored.
                **{"label_noise": 0.0, "train_examples": None, "imbalance": 1.0},
                sampling=Data().sampling,
            )
            # What is streamed has the size of the network's images, whatever its own.
            if name == "npz" or (name not in catalog.OWN and not self.stream):
                found = dataclasses.replace(
                    found,
                    **{"image_size": None, "resize": "squash", "skip_broken": False},
                    **{"stream": False, "workers": 0, "middle": 1.0},
                )
        setting = "path" if found.name in catalog.OWN else "data_dir"
        return dataclasses.replace(found, **({setting: place} if place else {}))
