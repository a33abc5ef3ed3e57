"""An engine of drawn weights, from a folder that holds none."""

from benchmarks.on_gpu.random_engine import WHERE_READ, drawn_decoder
from benchmarks.on_gpu.serving import write_model
from benchmarks.on_gpu.shapes import tiny
from engine.build import build_engine
from engine.config import CacheConfig, EngineConfig, ModelConfig


class Nowhere:
    """Stands for the outbox."""

    def put(self, message: object) -> None:
        pass


def test_an_engine_is_built_without_weights_to_read(tmp_path, monkeypatch):
    write_model(tmp_path / "model", tiny())
    model = ModelConfig(
        path=str(tmp_path / "model"), model_id="drawn", device="cpu", dtype="float32", kernels="reference"
    )
    config = EngineConfig(model=model, cache=CacheConfig(kv_cache_bytes=1 << 20))
    monkeypatch.setattr(WHERE_READ, "load_decoder", drawn_decoder)

    built = build_engine(config, lambda: None, Nowhere())

    assert built.card.weight_bytes > 0
