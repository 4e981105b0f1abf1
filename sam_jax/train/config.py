"""The configuration of a run: every setting, its default and its meaning.

A run card (``configs/cifar10_sam.py``) starts from `default_config`, sets what its
experiment needs and takes the method from the fragments beside it::

    def get_config(method: str = "sam"):
        config = default_config()
        config.data.name = "cifar10"
        config.method = load_method(method, card=__file__)
        return config
"""

import inspect
import json
import pathlib
import runpy
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import config_dict

from sam_jax import errors, methods

# A ConfigDict; Any to type checkers, which cannot know its attributes.
Config = Any

BASELINE = "none"  # config.method.name of a run without a method
_BASELINE_SUFFIXES = ("sgd", BASELINE)


def default_config() -> Config:
    """Every setting with its default.

    Settings of the type ``placeholder`` have no value until one is given.

    Returns:
        A fresh configuration; its keys are fixed, its values are typed.

    Example:
        >>> default_config().data.name
        'cifar10'
    """
    config = config_dict.ConfigDict()

    config.seed = 0  # of initialisation, data order, augmentation and dropout
    config.epochs = 200
    config.batch_size = 128  # over all devices; it must divide by their number
    config.learning_rate = 0.1  # the schedule's highest value
    config.label_smoothing = 0.0  # in [0, 1)
    config.clip_norm = config_dict.placeholder(float)  # of the method's direction
    config.ema_decay = 0.0  # of the weights that are evaluated, per step; 0 is off
    config.on_nonfinite = "stop"  # or "skip": leave such an update out, go on

    config.data = config_dict.ConfigDict()
    config.data.name = "cifar10"  # digits, or any image classification set of TFDS
    config.data.data_dir = config_dict.placeholder(str)  # where TFDS prepares it
    config.data.manual_dir = config_dict.placeholder(str)  # archives fetched by hand
    config.data.download = True
    # Held out from the training set: a fraction, or a number of examples; 0 is none.
    config.data.validation = _untyped(0.1)
    config.data.train_examples = config_dict.placeholder(int)  # of the rest; None: all
    config.data.label_noise = 0.0  # fraction of training labels made wrong
    config.data.seed = 0  # of the split and the label noise
    # shuffle: each example once per epoch; importance: with replacement, in proportion
    # to a score, and weighted by the inverse (unbiased). The score is the squared norm
    # of the image, or what a file says: a number for each original training example.
    config.data.sampling = config_dict.ConfigDict()
    config.data.sampling.name = "shuffle"
    config.data.sampling.scores = config_dict.placeholder(str)  # .npy of numpy.save
    config.data.sampling.uniform = 0.0  # share of draws that are uniform, in [0, 1]
    config.data.crop = 0  # pixels of padding of the random crop; 0 is off
    config.data.flip = False
    config.data.cutout = 0  # side of the square in pixels; 0 is off
    config.data.cutout_probability = 1.0

    config.model = config_dict.ConfigDict()
    config.model.name = "resnet18"
    config.model.width = config_dict.placeholder(int)  # None: as published
    config.model.dtype = "float32"  # of the computation; bfloat16 on accelerators
    # What only some models take, such as {"dropout": 0.3} for a Wide ResNet.
    config.model.options = config_dict.ConfigDict()

    config.method = config_dict.ConfigDict({"name": BASELINE})

    # In which updates the method is used; the others are the base optimizer's.
    config.cadence = config_dict.ConfigDict()
    config.cadence.name = "always"  # or every_k, late_phase, stochastic
    config.cadence.every_k = config_dict.ConfigDict({"k": 5})
    config.cadence.late_phase = config_dict.ConfigDict(  # shares of the run
        {"start": 0.7, "stop": 1.0}
    )
    config.cadence.stochastic = config_dict.ConfigDict({"probability": 0.5})

    # Any optimizer of Optax by its name; the settings of each under that name, so that
    # --config.optimizer.name=adamw needs no other change.
    config.optimizer = config_dict.ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.sgd = config_dict.ConfigDict({"momentum": 0.9, "nesterov": False})
    config.optimizer.adamw = config_dict.ConfigDict(
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    )
    config.optimizer.lion = config_dict.ConfigDict(
        {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0}
    )
    config.optimizer.lars = config_dict.ConfigDict(
        {"weight_decay": 0.0, "momentum": 0.9, "trust_coefficient": 0.001}
    )

    config.weight_decay = config_dict.ConfigDict()
    config.weight_decay.value = 5e-4
    # gradient: added to the direction, so that momentum sees it (as in torch's SGD);
    # decoupled: w -= learning rate * value * w, beside the optimizer (as in AdamW);
    # loss: value / 2 * |w|^2 in the loss, hence in the perturbation (Foret et al.).
    config.weight_decay.kind = "gradient"
    config.weight_decay.exclude_bias_and_norm = False

    config.schedule = config_dict.ConfigDict()
    # constant, cosine, linear, step, or diminish1, diminish2, diminish3 (per epoch, of
    # Khanh et al. 2024).
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 0.0  # linear, from zero, before any of them
    config.schedule.final_fraction = 0.0  # of the learning rate: cosine and linear
    config.schedule.boundaries = (60, 120, 160)  # step: epochs, counted with warm-up
    config.schedule.factor = 0.2  # step: multiplies at each boundary

    # Examples that share one perturbation (m of m-sharpness): each group of so many
    # perturbs with its own gradient, the directions are averaged. None: the batch.
    config.method_group_size = config_dict.placeholder(int)
    # What BatchNorm normalizes by in training: "group", the examples that pass through
    # the network together, or "batch", all groups.
    config.batch_norm = "group"
    # At most batch_size / accumulation_steps examples of a group pass through the
    # network at once, and all gradients are means over such chunks; smaller groups pass
    # whole, one after another on each device.
    config.accumulation_steps = 1
    # Residual blocks keep their input alone; the gradient computes the rest again.
    config.remat = False
    # Updates that the devices do by themselves before the host is in charge again: pays
    # where an update takes less time than what the host does for it, as a small network
    # on a GPU or TPU. The training set then lies on every device.
    config.steps_per_dispatch = 1

    config.eval_batch_size = 500
    config.eval_every_epochs = 1
    config.log_every_steps = 50
    config.checkpoint_every_epochs = 1

    config.mesh = config_dict.ConfigDict()
    # A grid of data x fsdp devices. Batches are split over all of them, parameters and
    # state over the fsdp devices of a row; data = -1 takes all there are.
    config.mesh.data = -1
    config.mesh.fsdp = 1

    config.wandb = config_dict.ConfigDict()
    config.wandb.mode = "disabled"  # or "offline", "online"
    config.wandb.project = "sam_jax"
    config.wandb.name = config_dict.placeholder(str)

    return config.lock()


# Settings that do not change what is computed: a run may be continued with others.
FREE_SETTINGS = (
    "wandb",
    "mesh",
    "remat",
    "steps_per_dispatch",
    "log_every_steps",
    "checkpoint_every_epochs",
    "eval_batch_size",
    "data.data_dir",
    "data.manual_dir",
    "data.download",
)


def load_method(
    name: str,
    card: str | pathlib.Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Settings of a method, from its fragment ``methods/<name>.py`` beside a run card.

    Three layers, the later ones win: the defaults of the factory, the fragment, and
    what the card says about this method.

    Args:
        name: a method, or ``sgd`` (also ``none``) for the base optimizer alone.
        card: path of the run card, that is its ``__file__``.
        overrides: method -> settings that this card needs to differ.

    Returns:
        ``config.method``: its name and all its coefficients. They are untyped, because
        a coefficient may be a number, a string such as ``'1/t'`` or a schedule.

    Raises:
        UserError: if there is no such method.

    Example:
        >>> print(load_method("sam", "card.py", {"sam": {"rho": 0.5}}))
        eps: 1.0e-12
        mask: null
        name: sam
        rho: 0.5
        <BLANKLINE>
    """
    if name in _BASELINE_SUFFIXES:
        return config_dict.ConfigDict({"name": BASELINE})
    settings = default_coefficients(name)
    fragment = pathlib.Path(card).parent / "methods" / f"{name}.py"
    if fragment.exists():
        settings |= dict(runpy.run_path(str(fragment))["get_config"]())
    settings |= (overrides or {}).get(name, {})
    return config_dict.ConfigDict(
        {k: v if k == "name" else _untyped(v) for k, v in settings.items()}
    )


def default_coefficients(name: str) -> dict[str, Any]:
    """Name and default coefficients of a method, from its signature.

    What other parts of the configuration decide is left out: ``learning_rate``,
    ``base`` and ``weight_decay``. A mask is one by its name: ``norm_layers``,
    ``weights``, or None.

    Raises:
        UserError: if there is no such method.
    """
    try:
        factory = methods.factory(name)
    except KeyError:
        known = [*methods.names(), *_BASELINE_SUFFIXES]
        raise errors.UserError(errors.unknown("method", name, known)) from None
    parameters = inspect.signature(factory).parameters.values()
    elsewhere = {"learning_rate", "base", "weight_decay"}
    return {"name": name} | {
        p.name: p.default for p in parameters if p.name not in elsewhere
    }


def check(config: Config) -> None:
    """Refuses settings outside their range that no builder checks.

    Raises:
        UserError: naming the setting, its value and what is allowed.
    """
    _require(config, "epochs", "an integer >= 1", lambda v: v >= 1)
    _require(config, "batch_size", "an integer >= 1", lambda v: v >= 1)
    _require(config, "eval_batch_size", "an integer >= 1", lambda v: v >= 1)
    _require(config, "eval_every_epochs", "an integer >= 1", lambda v: v >= 1)
    _require(config, "checkpoint_every_epochs", "an integer >= 1", lambda v: v >= 1)
    _require(config, "accumulation_steps", "an integer >= 1", lambda v: v >= 1)
    _require(config, "steps_per_dispatch", "an integer >= 1", lambda v: v >= 1)
    _require(config, "mesh.fsdp", "an integer >= 1", lambda v: v >= 1)
    _require(
        config,
        "method_group_size",
        "None or an integer >= 1",
        lambda v: v is None or v >= 1,
    )
    _require_one_of(config, "batch_norm", ("group", "batch"))
    _require(config, "log_every_steps", "an integer >= 1", lambda v: v >= 1)
    _require(config, "seed", "an integer in [0, 2**32)", lambda v: 0 <= v < 2**32)
    _require(config, "label_smoothing", "a number in [0, 1)", lambda v: 0 <= v < 1)
    _require(config, "ema_decay", "a number in [0, 1)", lambda v: 0 <= v < 1)
    # Untyped, so that it may be a share or a number; the data check its range.
    numbers = "a share in [0, 1) or a whole number of examples"
    _require(config, "data.validation", numbers, lambda v: isinstance(v, int | float))
    _require_one_of(config, "data.sampling.name", ("shuffle", "importance"))
    shares = "a number in [0, 1]"
    _require(config, "data.sampling.uniform", shares, lambda v: 0 <= v <= 1)
    _require_one_of(config, "on_nonfinite", ("stop", "skip"))
    _require_one_of(config, "wandb.mode", ("disabled", "offline", "online"))


def to_json(config: Config) -> str:
    """The resolved configuration as readable JSON, keys sorted."""
    return json.dumps(
        json.loads(config.to_json_best_effort()), indent=2, sort_keys=True
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two configurations compute something else; see `FREE_SETTINGS`.

    Args:
        old: nested settings, as read from JSON.
        new: nested settings, as read from JSON.

    Returns:
        One ``key: old -> new`` per difference.

    Example:
        >>> differences({"seed": 0, "wandb": {"mode": "offline"}}, {"seed": 1})
        ['seed: 0 -> 1']
    """
    a, b = _flat(old), _flat(new)
    return [
        f"{key}: {a.get(key)} -> {b.get(key)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
        and not any(key == free or key.startswith(free + ".") for free in FREE_SETTINGS)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _untyped(value: Any) -> Any:
    field = config_dict.placeholder(object)
    field.set(value)
    return field


def _require(
    config: Config, key: str, allowed: str, accepts: Callable[[Any], bool]
) -> None:
    value = _read(config, key)
    if not accepts(value):
        raise errors.UserError(f"config.{key} must be {allowed}, got {value!r}")


def _require_one_of(config: Config, key: str, allowed: tuple[str, ...]) -> None:
    value = _read(config, key)
    if value not in allowed:
        raise errors.UserError(errors.unknown(f"config.{key}", value, allowed))


def _read(config: Config, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
