import pytest
import torch

from tests.support.fused_run import fuse
from tests.support.native import LEVELS, needs_native
from tests.support.native_models import load_native, load_reference, native_run
from tests.support.pack_by_hand import RingRun
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf

pytestmark = needs_native

FAMILIES = {
    "llama-tied": {"family": "llama", "is_tied": True},
    "mistral-window": {"family": "mistral", "window": 8},
    "qwen2-window": {"family": "qwen2", "window": 8, "head_size": 12},
    "qwen3": {"family": "qwen3", "head_size": 32},
}
STEPS = [[(0, range(20))], [(0, [7]), (1, range(9))], [(1, [3]), (0, [4])], [(0, range(30, 41)), (1, [2])]]


def all_logits(run):
    return [run.step([(sequence, list(ids)) for sequence, ids in step]) for step in STEPS]


def sizes(**changes):
    return {"block_size": 4, "max_chunk": 20, "num_sequences": 2, **changes}


def fused_run(decoder, level, **changes):
    return fuse(native_run(decoder, **sizes(**changes)), level)


@pytest.fixture(scope="module", params=FAMILIES, ids=FAMILIES)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return write_tiny_checkpoint(folder, with_tokenizer=False, **FAMILIES[request.param])


@pytest.mark.parametrize("level", LEVELS)
def test_one_call_gives_what_its_operations_give_one_by_one(checkpoint, level):
    decoder = load_native(checkpoint, level)

    fused = all_logits(fused_run(decoder, level))

    assert all(map(torch.equal, fused, all_logits(native_run(decoder, **sizes()))))


@pytest.mark.parametrize("level", LEVELS)
def test_every_family_computes_what_the_reference_computes(checkpoint, level):
    native = all_logits(fused_run(load_native(checkpoint, level), level))

    for logits, expected in zip(
        native, all_logits(RingRun(load_reference(checkpoint), **sizes())), strict=True
    ):
        assert (logits - expected).abs().mean() < 0.02 * expected.std()


def test_positions_beyond_the_first_table_of_angles_are_turned_alike(checkpoint):
    decoder = load_native(checkpoint, LEVELS[-1])
    room = {"max_chunk": 2100, "max_context": 4200, "num_sequences": 1}
    ids = [position % 200 for position in range(4097)]
    steps = [[(0, ids[:2048])], [(0, ids[2048:4095])], [(0, ids[4095:])]]

    fused, plain = fused_run(decoder, LEVELS[-1], **room), native_run(decoder, **sizes(**room))

    for step in steps:
        last = [sum(len(own) for _, own in step) - 1]
        torch.testing.assert_close(fused.step(step, last), plain.step(step, last), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_the_block_size_changes_no_bit(checkpoint, block_size):
    decoder = load_native(checkpoint, LEVELS[-1])

    logits = all_logits(fused_run(decoder, LEVELS[-1], block_size=block_size))

    assert all(map(torch.equal, logits, all_logits(fused_run(decoder, LEVELS[-1]))))


@pytest.mark.parametrize("type_name", ["F16", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0"])
def test_a_gguf_file_is_computed_in_its_own_precision(tmp_path, type_name):
    path = write_tiny_gguf(tmp_path, type_name)

    native = all_logits(fused_run(load_native(path, LEVELS[-1]), LEVELS[-1]))

    for logits, expected in zip(native, all_logits(RingRun(load_reference(path), **sizes())), strict=True):
        assert (logits - expected).abs().mean() < 0.02 * expected.std()
