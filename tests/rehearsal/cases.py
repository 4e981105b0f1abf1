"""Steps whose collectives are counted, on fake devices and by the compiler for TPUs.

As a program it compiles all of them for a TPU slice and prints what it counted as JSON.
"""

import json
import os
import sys
from unittest import mock

from flax import linen as nn

from sam_jax.models import layers
from sam_jax.models.pure import of_linen
from sam_jax.rehearsal import hlo, programs, topologies
from sam_jax.train import build, config, settings, sharding
from tests.train import steps

DEVICES, BATCH, TOPOLOGY = 8, 64, "v5e:2x4"
OWN, PAIRS = {"method_group_size": 8}, {"method_group_size": 16}
# Method, settings, and the gradients that a step reduces, of all parameters.
CASES = {
    "SGD": ("none", {}, 1),
    "SAM": ("sam", {}, 2),  # at w, and at the weights that all share
    "SAM, BatchNorm of 8": ("sam", {"batch_norm": 8}, 2),
    "SAM, m of a device": ("sam", OWN, 1),  # the direction
    "SAM, m of a device, bfloat16": ("sam", OWN | {"all_reduce_dtype": "bfloat16"}, 1),
    "SAM, m of two devices": ("sam", PAIRS, 3),  # both in pairs, then the direction
    "SAM, accumulation": ("sam", {"accumulation_steps": 2}, 4),  # in each part
    "SAM, m of a device, accumulation": ("sam", OWN | {"accumulation_steps": 16}, 1),
    "SAM, fsdp": ("sam", {"mesh": {"fsdp": 8}}, 2),
    "ESAM": ("esam", {}, 2),
    "VaSSO": ("vasso", {}, 2),
    "VaSSO, m of a device": ("vasso", OWN, 2),  # and the average that all keep
    "LookSAM": ("looksam", {}, 2),
}
GRADIENT = 4 * (9 * 8 + 8 + 8 + 8 * 10 + 10)  # bytes


class Small(nn.Module):
    """A convolution with BatchNorm, and a head."""

    make: layers.Layers

    @nn.compact
    def __call__(self, images, train):
        x = self.make.conv(8, 3)(images)
        x = nn.relu(self.make.batch_norm(train=train)(x))
        return layers.head(10)(x.mean((1, 2)))


def network(read):
    """For `build.steps`."""
    number = read.batch_norm if isinstance(read.batch_norm, int) else None
    return of_linen(Small(layers.Layers("float32", norm_examples=number)))


def functions(name, devices):
    """Those of a case on given devices."""
    method, changes, _ = CASES[name]
    fragment = config.load_method(method, card="card.py")
    read = settings.read(
        {
            "method": fragment.to_dict(),
            "model": {"name": "mlp"},
            "batch_size": BATCH,
            "log_every_steps": 2,
        }
        | changes
    )
    groups, mesh = build.layout(read, devices)
    made = network(read)
    with mock.patch.object(build.network, "network", lambda *_, **__: made):
        return build.steps(read, steps.SPEC, groups=groups, mesh=mesh)


def compiled(name, devices):
    """The step of a case on given devices."""
    made = functions(name, devices)
    return made.train_step.lower(made.abstract_state(), made.abstract_batch()).compile()


def counted(program):
    """Rows of the table: kind, place, how many and bytes in a step."""
    rows = hlo.totals(hlo.collectives(program))
    return [[row["kind"], row["place"], row["count"], row["bytes"]] for row in rows]


def main():
    """All cases, for the slice."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sharding.SMALLEST_SHARDED = 64
    programs.set_effort(-1.0)
    devices = topologies.read(TOPOLOGY).devices()
    found = {}
    for name in CASES:
        program = compiled(name, devices)
        found[name] = {
            "rows": counted(program),
            "reused": program.memory_analysis().alias_size_in_bytes,
        }
    json.dump(found, out)
    out.close()


if __name__ == "__main__":
    sys.exit(main())
