"""Which part of the project may import which: the table that `test_imports.py` enforces.

A *unit* is a module in the root of `engine` or `server`, or a folder there with all that is in it.
A unit imports units of lower rank. Within a rank it imports only those that its row names: these
are the arrows of the table in docs/architecture.md. Within a folder anything goes but a cycle.
"""

from dataclasses import dataclass
from enum import StrEnum


class Half(StrEnum):
    """Which process of the engine a unit is loaded in."""

    FRONT = "front"
    CORE = "core"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a unit stands; `arrows` are the units of its own rank that it may import."""

    rank: int
    half: Half
    arrows: frozenset[str] = frozenset()


def _front(rank: int, *arrows: str) -> Place:
    return Place(rank=rank, half=Half.FRONT, arrows=frozenset(arrows))


def _core(rank: int, *arrows: str) -> Place:
    return Place(rank=rank, half=Half.CORE, arrows=frozenset(arrows))


def _both(rank: int, *arrows: str) -> Place:
    return Place(rank=rank, half=Half.BOTH, arrows=frozenset(arrows))


ENGINE = {
    "__main__": _core(7, "build"),
    "build": _core(7),
    "engine": _front(6, "insight", "supervisor", "limits"),
    "insight": _front(6, "supervisor"),
    "supervisor": _front(6),
    "limits": _front(6),
    "loop": _core(6, "intake", "metering"),
    "metering": _core(6),
    "intake": _core(6),
    "outbox": _core(6),
    "open_requests": _front(5, "stream", "open_orders", "open_request"),
    "open_request": _front(5, "stream"),
    "open_orders": _front(5),
    "stream": _front(5),
    "signs_of_life": _front(5, "engine_process"),
    "engine_process": _front(5),
    "scheduling": _core(5),
    "execution": _core(5),
    "request_record": _front(4),
    "structured": _core(5),
    "text": _front(4),
    "cache": _core(4),
    "models": _core(4),
    "quantization": _core(4, "models"),
    "layers": _core(3),
    "kernels": _core(2),
    "channel": _both(1, "messages"),
    "messages": _both(1, "request"),
    "request": _both(1),
    "plan": _core(1, "request"),
    "model_spec": _core(1),
    "batch": _core(1),
    "source": _both(0, "wheel_model", "errors"),
    "wheel_model": _both(0, "errors"),
    "config": _both(0, "errors"),
    "errors": _both(0),
    "token_scores": _both(0),
    "prefix_report": _both(0),
    "stats": _both(0, "prefix_report"),
    "logs": _both(0),
    "clock": _front(0),
}

SERVER = {
    "__main__": _front(7),
    "serving": _front(6, "http_server"),
    "http_server": _front(6),
    "app": _front(5, "routes"),
    "routes": _front(5),
    "answering": _front(4),
    "prompting": _front(4),
    "dependencies": _front(3),
    "selftest": _front(3),
    "terminal": _front(3),
    "companion": _front(3),
    "translate": _front(2),
    "sse": _front(2),
    "middleware": _front(2),
    "connection": _front(2, "sse"),
    "errors": _front(1),
    "reasoning": _front(1, "tools"),
    "tools": _front(1),
    "metrics": _front(1),
    "streams": _front(1),
    "traces": _front(1),
    "settings": _front(0, "keys", "command_line"),
    "command_line": _front(0),
    "keys": _front(0),
    "observation": _front(0),
    "schemas": _front(0, "contract"),
    "contract": _front(0),
}

PLACES = {f"engine.{unit}": place for unit, place in ENGINE.items()} | {
    f"server.{unit}": place for unit, place in SERVER.items()
}

# Where a library may be imported, as module prefixes. Others are free.
LIBRARIES = {
    "torch": (
        "engine.batch",
        "engine.cache.store",
        "engine.execution",
        "engine.kernels",
        "engine.layers",
        "engine.models",
        "engine.quantization",
    ),
    "transformers": (),
    "triton": ("engine.kernels.triton",),
    "gguf": ("engine.models",),
    "safetensors": ("engine.models",),
    "tokenizers": ("engine.text",),
    "jinja2": ("engine.text",),
    "llguidance": ("engine.structured", "server.translate"),
    "huggingface_hub": ("engine.source",),
    "pickle": ("engine.channel",),
    "fastapi": ("server",),
    "starlette": ("server",),
    "sse_starlette": ("server",),
    "uvicorn": ("server",),
    "pydantic": ("server",),
    "pydantic_settings": ("server",),
    "openai": ("server.terminal",),
    "opentelemetry": ("server.traces",),
    "prometheus_client": ("server.metrics", "server.routes.metrics"),
}


def unit_of(module: str) -> str:
    """The unit that a module belongs to: `engine.cache.pool` is in `engine.cache`."""
    return ".".join(module.split(".")[:2])
