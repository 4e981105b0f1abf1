"""What crosses the network in a step, and what is written in place."""

import re

import jax
import pytest

from sam_jax.methods import observations, trees
from sam_jax.rehearsal import hlo
from sam_jax.train import build, sharding
from tests.train import steps

BATCH = 64  # on eight devices, eight examples each


@pytest.fixture
def compiled(tiny):
    """``compiled("sam", **settings)``: the step on eight devices, and its state."""

    def make(method, **settings):
        settings = {"mesh.data": -1, "batch_size": BATCH, "model.width": 64} | settings
        run = build.build(tiny(method, **settings))
        batches = run.dataset.train.batches(batch_size=BATCH, seed=0)
        placed = sharding.put_batch(next(batches), run.mesh)
        train_state = run.init(run.seed)
        return run.train_step.lower(train_state, placed).compile(), train_state

    return make


def size(train_state):
    return sum(x.size for x in jax.tree.leaves(train_state.params))


def large(program, parameters):
    """Collectives of more than one percent of the parameters: (name, devices)."""
    return sorted(
        (each.name, each.devices)
        for each in hlo.collectives(program)
        if sum(each.elements) > parameters / 100
    )


REDUCED = [
    ("none", None, 1),
    ("sam", None, 2),  # at w, and at the weights that all share
    ("sam", 8, 1),  # the direction; each device perturbs on its own
    ("sam", 4, 1),  # two groups on a device
    ("vasso", None, 2),
    ("vasso", 8, 2),  # the direction, and the average that all keep
    ("friendly_sam", 8, 2),
    ("gsam", 8, 1),
    ("looksam", None, 2),
    ("looksam", 8, 2),  # the direction, and the component in its own updates
    ("momentum_sam", 8, 1),  # the gradient that its step is made of
    ("bsam", 8, 2),  # that, and the curvature
    ("lookbehind", 8, 2),  # each of its descents
]


@pytest.mark.slow("compiles many steps; `tests.rehearsal` has some of them")
@pytest.mark.parametrize(("method", "m", "gradients"), REDUCED)
def test_gradients_that_are_reduced(compiled, method, m, gradients):
    program, state = compiled(method, method_group_size=m)
    parameters = size(state)
    assert hlo.copies(program, parameters) == pytest.approx(gradients, abs=0.02)
    assert set(large(program, parameters)) == {("all-reduce", 8)}


def test_groups_of_two_devices_reduce_among_themselves(compiled):
    program, state = compiled("sam", method_group_size=16)
    parameters = size(state)
    carried = dict.fromkeys((2, 4), 0)
    for each in hlo.collectives(program):
        assert each.name == "all-reduce"
        if each.devices in carried:
            carried[each.devices] += sum(each.elements)
    # Two gradients within each pair, one direction over the four pairs.
    assert carried[2] / parameters == pytest.approx(2, abs=0.02)
    assert carried[4] / parameters == pytest.approx(1, abs=0.02)


def test_accumulation_reduces_once_per_device_group(compiled):
    """Groups that a device has to itself are not reduced within the loop."""
    program, state = compiled("sam", method_group_size=4, accumulation_steps=2)
    assert hlo.copies(program, size(state)) == pytest.approx(1, abs=0.02)


def test_cut_parameters_are_gathered_once_and_reduced_once(compiled):
    program, state = compiled(
        "sam", **{"mesh.fsdp": 8, "method_group_size": 8, "model.width": 512}
    )
    parameters = size(state)
    gathered = hlo.copies(program, parameters, "all-gather")
    assert gathered == pytest.approx(1, abs=0.1)  # small arrays are not cut
    assert hlo.copies(program, parameters) == pytest.approx(1, abs=0.02)


def test_statistics_of_a_device_add_no_collective_of_their_own(tiny, net):
    [batch] = steps.batches(1, BATCH)

    def number(m):
        settings = {"mesh.data": 8, "batch_size": BATCH, "method_group_size": m}
        made = build.steps(tiny("sam", **settings), steps.SPEC, model=net())
        state = made.init(made.seed)
        placed = sharding.put_batch(batch, made.mesh)
        program = made.train_step.lower(state, placed).compile()
        return len(hlo.collectives(program))

    # Those of the whole batch are reduced, forwards and back.
    assert number(8) <= 4 < number(None)


@pytest.mark.slow("compiles residual networks on eight devices")
def test_batch_norm_of_a_device_adds_no_collective_of_its_own(compiled):
    network = {"model.name": "resnet_digits", "model.width": 8, "model.options": {}}
    own, state = compiled("sam", method_group_size=8, **network)
    shared, _ = compiled("sam", **network)
    parameters = size(state)
    assert hlo.copies(own, parameters) == pytest.approx(1, abs=0.1)
    assert hlo.copies(shared, parameters) == pytest.approx(2, abs=0.2)
    # Statistics of the whole batch are reduced layer by layer, forwards and back.
    number = {
        name: len(hlo.collectives(p)) for name, p in (("own", own), ("shared", shared))
    }
    assert number["own"] <= 4
    assert number["shared"] > 20


@pytest.mark.parametrize("settings", [{}, {"mesh.fsdp": 8}, {"method_group_size": 8}])
def test_the_whole_state_is_written_in_place(compiled, settings):
    program, state = compiled(
        "vasso", **{"model.width": 512, "ema_decay": 0.9} | settings
    )
    table = re.search(r"input_output_alias=\{(.*?)\}, entry", program.as_text())
    assert table is not None
    # The diagnostics of the update before are not read, hence no inputs.
    [seen] = trees.nodes(state.opt_state, observations.Diagnostics)
    unread = {id(x) for x in jax.tree.leaves(seen)}
    read = [x for x in jax.tree.leaves(state) if id(x) not in unread]
    aliased = {int(number) for number in re.findall(r": \((\d+), \{\}", table[1])}
    assert len(unread) == 5
    assert aliased == set(range(len(read)))
    local = sum(x.addressable_shards[0].data.nbytes for x in read)
    assert program.memory_analysis().alias_size_in_bytes == local
