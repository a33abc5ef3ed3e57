import pytest

from engine.config import CacheConfig, EngineConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.native_back_end import NativeBackEnd
from engine.models.registry import read_spec
from engine.models.weights import as_it_is
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams
from engine.structured.mask import MaskTable
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.tiny_model import write_tiny_checkpoint

pytestmark = needs_native


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=8)


def back_end(path, **cache):
    config = EngineConfig(
        model=ModelConfig(path=str(path), model_id="tiny"),
        cache=CacheConfig(**{"kv_cache_bytes": 1 << 20, **cache}),
    )
    kernels = native_kernels(LEVELS[-1])
    return NativeBackEnd(config, read_spec(path), kernels, num_threads=1, through=as_it_is)


def place(back_end, told=None):
    def report(stage):
        return lambda done, total: None if told is None else told.append((stage, done, total))

    return back_end.place(MaskTable(), report)


def test_it_says_what_computes(checkpoint):
    own = back_end(checkpoint)

    assert (own.device, own.device_name, own.dtype, own.cache_dtype) == ("cpu", "cpu", "bfloat16", "bfloat16")
    assert own.kernels == f"native-{LEVELS[-1]}"


def test_what_is_placed_computes_steps(checkpoint):
    placed = place(back_end(checkpoint))
    draw = Draw(sampling=SamplingParams(max_tokens=1, seed=0, temperature=0.0), choice=0)
    chunk = Chunk(1, 0, 3, (5, 6, 7), (ChunkTable(0, (0,)),), draw=draw)

    (token_ids,) = placed.runner.finish(placed.runner.begin(StepPlan(chunks=(chunk,)))).token_ids

    assert 0 <= token_ids[0] < 264
    assert placed.weight_bytes > 0


def test_an_8_bit_cache_has_more_blocks(checkpoint):
    own, small = place(back_end(checkpoint)).layout, place(back_end(checkpoint, kv_dtype="int8")).layout

    assert small.block_bytes * 16 * 2 == own.block_bytes * (16 + 4)  # heads of 16
    assert small.num_blocks > own.num_blocks


def test_reading_weights_is_told_up_to_the_last_byte(checkpoint):
    told = []

    place(back_end(checkpoint), told)

    assert {stage for stage, _, _ in told} == {"weights"}
    assert told[-1][1] == told[-1][2] > 0


def test_a_pool_that_cannot_work_is_refused_before_the_weights_are_read(checkpoint):
    told = []

    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        place(back_end(checkpoint, kv_cache_bytes=1), told)
    assert told == []
