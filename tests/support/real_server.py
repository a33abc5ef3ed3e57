"""A live server over the real engine: a tiny model in a process of its own, reached over HTTP."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from engine import CacheConfig, Engine, EngineConfig, ModelConfig, SchedulingConfig, SupervisionConfig
from tests.support.live_server import live_server

MODEL_ID = "tiny"
MAX_CONTEXT = 96
PATIENCE_S = 60.0


@contextmanager
def real_server(checkpoint: Path, *, template: Path | None = None) -> Iterator[httpx.Client]:
    """A client of a server whose engine computes in single precision; `template` takes the place of its own."""
    config = EngineConfig(
        model=ModelConfig(
            path=str(checkpoint),
            model_id=MODEL_ID,
            device="cpu",
            dtype="float32",
            cpu_threads=1,
            max_context=MAX_CONTEXT,
            chat_template=None if template is None else str(template),
        ),
        cache=CacheConfig(kv_cache_bytes=1 << 22),
        scheduling=SchedulingConfig(),
        supervision=SupervisionConfig(),
    )
    with (
        live_server(lambda: Engine(config)) as live,
        httpx.Client(base_url=live.url, timeout=PATIENCE_S) as client,
    ):
        deadline_s = time.monotonic() + PATIENCE_S
        while (ready := client.get("/ready")).status_code != 200:
            assert time.monotonic() < deadline_s, ready.text
            time.sleep(0.05)  # a real process, polled within a bound
        yield client
