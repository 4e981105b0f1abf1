"""Every setting of a run, its type, its default, its range and its meaning.

`read` makes them once, of a run card's configuration; what is behind it reads
attributes that a type checker knows. Of a choice (an optimizer, a schedule, ...) only
the settings of what was chosen exist.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

from sam_jax import errors, plugins
from sam_jax.train import coefficients, files, typed
from sam_jax.train.data_settings import Data as Data
from sam_jax.train.data_settings import Importance as Importance
from sam_jax.train.data_settings import Shuffle as Shuffle
from sam_jax.train.ranges import (
    Batch,
    BelowOne,
    Count,
    Dispatch,
    Epochs,
    Nonnegative,
    Positive,
    Seed,
    Share,
    UpTo1000,
    Width,
)


@dataclasses.dataclass(frozen=True)
class Own:
    """Your own function, and its arguments besides what the trainer gives it."""

    name: str | None = None  # my_file.py:function; None is none
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def function(self, setting: str, *inputs: str) -> Callable[..., Any] | None:
        """The function of its inputs; None where there is none."""
        if self.name is None and not self.options:
            return None
        return plugins.bound(self.name, setting, self.options, inputs)


# ── Model ────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "resnet18"  # or yours, my_net.py:MyNet, a module of Linen or NNX
    width: Width | None = None  # None: as published
    dtype: str = "float32"  # of the computation; bfloat16 on accelerators
    # What only some models take, such as {"dropout": 0.3} for a Wide ResNet.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# ── Method and optimizer ─────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Always(typed.Choice):
    """The method in every update."""

    name = "always"
    nested = True


@dataclasses.dataclass(frozen=True)
class EveryK(typed.Choice):
    """The method in every k-th update, the base optimizer alone in the others."""

    name = "every_k"
    nested = True
    k: Count = 5


@dataclasses.dataclass(frozen=True)
class LatePhase(typed.Choice):
    """The method in a part of the run."""

    name = "late_phase"
    nested = True
    start: Share = 0.7  # of the run
    stop: Share = 1.0


@dataclasses.dataclass(frozen=True)
class Stochastic(typed.Choice):
    """The method in updates drawn at random."""

    name = "stochastic"
    nested = True
    probability: Share = 0.5


Cadence = Always | EveryK | LatePhase | Stochastic


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer of Optax by its name, and its settings.

    In a configuration the settings of each stand under its name, so that
    ``--config.optimizer.name=adamw`` needs no other change; those of your own,
    ``my.py:my_sgd``, under ``options``.
    """

    name: str = "sgd"
    options: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: dict(Optimizer.OPTIONS["sgd"])
    )

    OPTIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sgd": {"momentum": 0.9, "nesterov": False},
        "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        "lion": {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0},
        "lars": {"weight_decay": 0.0, "momentum": 0.9, "trust_coefficient": 0.001},
    }

    @classmethod
    def read(cls, value: Any, path: str) -> Self:
        """From a name, and mappings of options under the names of optimizers."""
        from sam_jax.train import options  # Optax, which a command line does not need

        typed.refuse_no_mapping(value, path)
        given = {"name": "sgd", **value}
        name = typed.read(str, given.pop("name"), f"{path}.name")
        options_of_own = given.pop("options", {})
        if plugins.is_reference(name) and options_of_own:
            given[name] = options_of_own
        for optimizer, values in ({name: {}} | given).items():
            typed.refuse_no_mapping(values, f"{path}.{optimizer}")
            # Of the user's own only the chosen one is run.
            if optimizer == name or not plugins.is_reference(optimizer):
                options.check(optimizer, values, path)
        return cls(name, {**cls.OPTIONS.get(name, {}), **given.get(name, {})})

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Those that need settings to be of use."""
        known = {k: dict(v) for k, v in cls.OPTIONS.items()}
        return {"name": "sgd", "options": {}} | known

    def plain(self) -> dict[str, Any]:
        """The name, and the options under it."""
        own = plugins.is_reference(self.name)
        return {"name": self.name, "options" if own else self.name: dict(self.options)}


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Weight decay, of one of three kinds."""

    value: UpTo1000 = 5e-4
    # gradient: added to the direction, so that momentum sees it (as in torch's SGD);
    # decoupled: w -= learning rate * value * w, beside the optimizer (as in AdamW);
    # loss: value / 2 * |w|^2 in the loss, hence in the perturbation (Foret et al.).
    kind: Literal["gradient", "decoupled", "loss"] = "gradient"
    exclude_bias_and_norm: bool = False


# ── Devices and logs ─────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A grid of data x fsdp devices.

    Batches are split over all of them, parameters and state over the fsdp devices of a
    row.
    """

    data: int = -1  # -1 takes all there are
    fsdp: Count = 1


@dataclasses.dataclass(frozen=True)
class Wandb:
    """What is sent to Weights & Biases."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "sam_jax"
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the state is saved, and which checkpoints stay.

    The end of the run is saved as well, and the best state on validation; the best
    stays.
    """

    every_epochs: Count | None = 1
    every_steps: Count | None = None
    every_seconds: Positive | None = None  # since the last one, by process 0's clock
    keep_last: Count = 2
    keep_every: Count | None = None  # steps: those of multiples of this stay as well


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """What is measured of the sharpness in training: `sam_jax.train.sharpness`."""

    every: Count | None = None  # epochs; after the last one, too. None: never
    # Names of numbers, and of pictures of the last weights: density, line, plane.
    measures: str | tuple[str, ...] = "lambda_max,trace"
    examples: Count = 1000  # of the training set


# ── All of them ──────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run."""

    seed: Seed = 0  # of initialisation, data order, augmentation and dropout
    epochs: Epochs = 200
    batch_size: Batch = 128  # over all devices; it must divide by their number
    learning_rate: Nonnegative = 0.1  # the schedule's highest value
    loss: str = "cross_entropy"  # or yours, my_loss.py:fn; see `sam_jax.train.losses`
    label_smoothing: BelowOne = 0.0  # of the cross-entropy
    clip_norm: Positive | None = None  # of the method's direction
    # What the weights start from: a run (RUN, RUN@last), a file of `sam-jax export`, or
    # timm:NAME@FILE, torchvision:.., hf:.., vision_transformer:FILE.npz; None: drawn.
    init_from: str | None = None
    init_fresh: str | None = None  # drawn all the same: a regex of names of arrays
    freeze: str | None = None  # what is not trained: such a regex
    # Of the learning rate of some: "^Dense_0=10 Block_0=0.1", the first to match.
    learning_rate_factors: str | None = None
    ema_decay: BelowOne = 0.0  # of the weights that are evaluated, per step; 0 is off
    # Share of the run after which the mean of all weights is evaluated (SWA).
    swa_start: BelowOne | None = None
    # Of an update that is not finite; skip: leave it out, with the counts that the
    # schedules of method and optimizer follow. In float16, where the loss scale adapts
    # by such updates, they are always left out.
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_consecutive_skips: Count = 20  # so many left out in a row end the run

    data: Data = dataclasses.field(default_factory=Data)
    # Yours, before what else is done to the images: fn(key, images) -> images
    augment: Own = dataclasses.field(default_factory=Own)
    # Yours, of validation and test sets: fn(outputs, batch) -> {name: numbers [B]}
    metrics: Own = dataclasses.field(default_factory=Own)
    model: Model = dataclasses.field(default_factory=Model)
    method: coefficients.Method = dataclasses.field(default_factory=coefficients.Method)
    # In which updates the method is used; the others are the base optimizer's.
    cadence: Cadence = Always()
    # Whether the method's norms, angle and perturbed loss are logged; False: the step
    # computes none, compiles in less time and holds one copy of the weights less. What
    # is not finite is then seen in the loss and the update, not in the gradient.
    diagnostics: bool = True
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    weight_decay: WeightDecay = WeightDecay()
    schedule: coefficients.Schedule = dataclasses.field(
        default_factory=coefficients.Cosine
    )

    # Examples that share one perturbation (m of m-sharpness): each group of that many
    # perturbs with its own gradient, the directions are averaged. None: the batch.
    method_group_size: Batch | None = None
    # What BatchNorm normalizes by in training: "group", the examples that pass through
    # the network together, "batch", all groups, or that many consecutive examples.
    batch_norm: Literal["group", "batch"] | Batch = "group"
    # In which the directions of groups are averaged; vectors are in float32 always.
    all_reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    # At most batch_size / accumulation_steps examples of a group pass through the
    # network at once, and all gradients are means over such chunks; smaller groups pass
    # whole, one after another on each device.
    accumulation_steps: Batch = 1
    # Residual blocks keep their input alone; the gradient computes the rest again.
    remat: bool = False
    # Updates that the devices do by themselves before the host is in charge again: pays
    # where an update takes less time than what the host does for it, as a small network
    # on a GPU or TPU. Every device then holds the training set.
    steps_per_dispatch: Dispatch = 1

    eval_batch_size: Batch = 500
    eval_every_epochs: Count = 1
    log_every_steps: Count = 50

    # report.html at the end: full, without images of wrong predictions, or none.
    report: Literal["full", "no_images", "off"] = "full"
    checkpoint: Checkpoint = Checkpoint()
    sharpness: Sharpness = Sharpness()
    mesh: Mesh = Mesh()
    wandb: Wandb = Wandb()

    @property
    def averages(self) -> bool:
        """Whether averages of the weights are evaluated."""
        return bool(self.ema_decay) or self.swa_start is not None

    @property
    def skips_nonfinite(self) -> bool:
        """Whether updates that are not finite are left out."""
        return self.on_nonfinite == "skip" or self.model.dtype == "float16"


def read(config: Any) -> Settings:
    """The settings of a run, from the configuration of a card or of a run folder.

    Args:
        config: a ConfigDict or nested mappings, with the keys of
            `sam_jax.train.config.default_config`; what is missing has its default, but
            the name of a choice must be there. Settings are returned as they are.

    Returns:
        The settings, all of the right type and in their range. What depends on several
        of them, or on the data, is checked where it is built.

    Raises:
        UserError: naming the setting, its value and what is allowed.

    Example:
        >>> read({"schedule": {"name": "step", "boundaries": (3, 5)}}).schedule
        Step(warmup_epochs=0.0, boundaries=(3, 5), factor=0.2)
    """
    if isinstance(config, Settings):
        return config
    tree = getattr(config, "to_dict", lambda: config)()
    for key in RENAMED:
        if isinstance(tree, Mapping) and key in tree:
            raise errors.UserError(renamed(key))
    return typed.read(Settings, tree, "config")


# Settings that do not change what is computed: a run may be continued with others.
FREE_SETTINGS = (
    "wandb",
    "mesh",
    "remat",
    "steps_per_dispatch",
    "log_every_steps",
    "report",
    "checkpoint",
    "sharpness",
    "eval_batch_size",
    "on_nonfinite",
    "max_consecutive_skips",
    "data.data_dir",
    "data.manual_dir",
    "data.download",
    "data.path",
    "data.cache_dir",
    "data.workers",
)


# Settings of earlier versions, and what they are now. All are free settings.
RENAMED = {"checkpoint_every_epochs": "checkpoint.every_epochs"}


def renamed(key: str) -> str:
    """Message for a setting of an earlier version."""
    return f"setting config.{key} is now config.{RENAMED[key]}"


# Groups with values that the user's own code takes.
_OF_ANY_KIND = ("augment", "method", "metrics", "model", "optimizer", "schedule")


def of_folder(stored: Any) -> Settings:
    """As `read`, of a run folder that an earlier version may have made.

    A setting that it did not have has its default, and those that were renamed are
    left out. ``"NaN"`` and ``"Infinity"`` are numbers only where any could stand.
    """
    if isinstance(stored, Mapping):
        stored = {
            key: files.decoded(x) if key in _OF_ANY_KIND else x
            for key, x in stored.items()
            if key not in RENAMED
        }
    return read(stored)


def to_json(config: Settings) -> str:
    """The settings as readable JSON, keys sorted; `read` reads them again."""
    return files.to_json(
        typed.plain(config),
        indent=2,
        sort_keys=True,
        default=lambda value: f"a {type(value).__name__}",  # a schedule of a card
    )


def differences(old: Settings, new: Settings) -> list[str]:
    """Where two runs compute something else; see `FREE_SETTINGS`.

    Returns:
        One ``key: old -> new`` per difference.

    Example:
        >>> differences(read({}), read({"seed": 1, "wandb": {"mode": "offline"}}))
        ['seed: 0 -> 1']
    """
    free = tuple(f"{key}." for key in FREE_SETTINGS)
    a, b = (
        {k: x for k, x in flat_text(config).items() if not f"{k}.".startswith(free)}
        for config in (old, new)
    )
    return changed(a, b)


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """One ``key: old -> new`` for each setting that differs.

    Example:
        >>> nan = float("nan")
        >>> changed({"rho": nan, "seed": 0}, {"rho": -nan, "seed": 1})
        ['seed: 0 -> 1']
    """
    pairs = {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys())}
    return [
        f"{key}: {old} -> {new}"
        for key, (old, new) in pairs.items()
        if old != new and repr(old) != repr(new)  # NaN differs from itself
    ]


def flat_text(config: Settings) -> dict[str, Any]:
    """`flat`, of what a file of these settings says."""
    return flat(files.from_json(to_json(config)))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their whole names.

    Example:
        >>> flat({"seed": 0, "data": {"name": "digits"}})
        {'seed': 0, 'data.name': 'digits'}
    """
    found = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
