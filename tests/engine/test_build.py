import pytest

from engine.build import build_engine
from engine.config import CacheConfig, EngineConfig, ModelConfig
from engine.errors import CheckpointError, ConfigError
from engine.messages import Loading
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=8)


class Sent(list):
    """Stands for the outbox."""

    put = list.append


def build(path, sent=None, *, cache=None, **model):
    config = EngineConfig(
        model=ModelConfig(path=str(path), model_id="tiny", device="cpu", dtype="float32", **model),
        cache=CacheConfig(**{"kv_cache_bytes": 1 << 20, **(cache or {})}),
    )
    return build_engine(config, lambda: None, Sent() if sent is None else sent)


def test_the_card_says_what_was_built(checkpoint):
    card = build(checkpoint).card

    assert (card.model_id, card.family, card.device, card.dtype) == ("tiny", "mistral", "cpu", "float32")
    assert (card.window, card.max_context, card.vocab_size, card.eos_ids) == (8, 512, 264, (257,))
    assert card.num_blocks * card.block_bytes <= 1 << 20


def test_an_8_bit_cache_has_more_blocks_and_leaves_the_models_dtype(checkpoint):
    own, small = build(checkpoint), build(checkpoint, cache={"kv_dtype": "int8"})

    assert (own.card.dtype, small.card.dtype) == ("float32", "float32")
    assert small.card.block_bytes * 16 * 4 == own.card.block_bytes * (16 + 4)  # heads of 16
    assert small.card.num_blocks > 3 * own.card.num_blocks


def test_a_gguf_file_is_not_quantised_again(tmp_path):
    with pytest.raises(ConfigError, match=r"quantization is 'int4', but .* is a GGUF file"):
        build(write_tiny_gguf(tmp_path, "Q4_1"), quantization="int4")


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"quantization": "fp8"}, "on a CPU take int8 or int4"),
        ({"deterministic": True}, "ask for no --kernels reference"),
    ],
    ids=["fp8", "deterministic"],
)
def test_what_a_cpu_cannot_serve_is_refused_before_the_weights_are_read(checkpoint, ways, message):
    sent = Sent()

    with pytest.raises(ConfigError, match=message):
        build(checkpoint, sent, kernels="reference", **ways)
    assert not sent


def test_an_imposed_window_narrows_the_models_own(checkpoint):
    assert build(checkpoint, window=4).card.window == 4
    assert build(checkpoint, window=100).card.window == 8


def test_progress_is_told_up_to_the_last_byte(checkpoint):
    sent = Sent()
    build(checkpoint, sent)

    assert isinstance(sent[-1], Loading)
    assert sent[-1].done == sent[-1].total > 0


def test_weights_are_held_once(checkpoint):
    stored = (checkpoint / "model.safetensors").stat().st_size

    assert build(checkpoint).card.weight_bytes <= stored


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        build(tmp_path / "nothing")


def test_more_context_than_the_model_has_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="max_context is 513"):
        build(checkpoint, max_context=513)


def test_a_pool_that_cannot_work_is_refused_before_the_weights_are_read(checkpoint):
    sent = Sent()

    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        build(checkpoint, sent, cache={"block_size": 16, "kv_cache_bytes": 1})
    assert not sent
