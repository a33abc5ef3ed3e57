"""The engine's public names: everything that `server` may import.

They are resolved when first used (PEP 562), so that the engine process, which imports this package
as well, loads no module of the front half, and the server process none of the core half.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import CacheConfig as CacheConfig
    from engine.config import EngineConfig as EngineConfig
    from engine.config import ModelConfig as ModelConfig
    from engine.config import SchedulingConfig as SchedulingConfig
    from engine.config import SupervisionConfig as SupervisionConfig
    from engine.engine import Engine as Engine
    from engine.engine import Health as Health
    from engine.errors import CheckpointError as CheckpointError
    from engine.errors import ConfigError as ConfigError
    from engine.errors import ContextLengthError as ContextLengthError
    from engine.errors import DeadlineError as DeadlineError
    from engine.errors import EngineCrashedError as EngineCrashedError
    from engine.errors import EngineError as EngineError
    from engine.errors import EngineUnavailableError as EngineUnavailableError
    from engine.errors import OverloadedError as OverloadedError
    from engine.errors import RateLimitedError as RateLimitedError
    from engine.errors import RequestError as RequestError
    from engine.errors import RetryableError as RetryableError
    from engine.errors import StepError as StepError
    from engine.errors import UnknownModelError as UnknownModelError
    from engine.insight import Stats as Stats
    from engine.logs import configure_logging as configure_logging
    from engine.logs import shown_ms as shown_ms
    from engine.messages import Load as Load
    from engine.messages import ModelCard as ModelCard
    from engine.prefix_report import MissReason as MissReason
    from engine.prefix_report import PrefixCounters as PrefixCounters
    from engine.prefix_report import PrefixReport as PrefixReport
    from engine.request import FinishReason as FinishReason
    from engine.request import Request as Request
    from engine.request import SamplingParams as SamplingParams
    from engine.request_record import RequestRecord as RequestRecord
    from engine.request_record import RequestStats as RequestStats
    from engine.source import DEMO_MODEL as DEMO_MODEL
    from engine.source import ModelSource as ModelSource
    from engine.source import fetch_demo_model as fetch_demo_model
    from engine.source import resolve as resolve
    from engine.stats import LATENCY_BOUNDS_S as LATENCY_BOUNDS_S
    from engine.stats import EngineCounters as EngineCounters
    from engine.stats import EngineView as EngineView
    from engine.stats import Histogram as Histogram
    from engine.stats import PoolGauges as PoolGauges
    from engine.stats import RingView as RingView
    from engine.stats import SequenceView as SequenceView
    from engine.stats import Tally as Tally
    from engine.stream import TokenEvent as TokenEvent
    from engine.stream import TokenStream as TokenStream
    from engine.supervisor import EngineState as EngineState
    from engine.text.chat_template import ChatOptions as ChatOptions
    from engine.text.chat_template import RenderedChat as RenderedChat
    from engine.text.token_logprob import TokenLogprob as TokenLogprob
    from engine.text.tokenizer import Tokenizer as Tokenizer

_HOMES = {
    "CacheConfig": "engine.config",
    "ChatOptions": "engine.text.chat_template",
    "CheckpointError": "engine.errors",
    "ConfigError": "engine.errors",
    "ContextLengthError": "engine.errors",
    "DEMO_MODEL": "engine.source",
    "DeadlineError": "engine.errors",
    "Engine": "engine.engine",
    "EngineConfig": "engine.config",
    "EngineCounters": "engine.stats",
    "EngineCrashedError": "engine.errors",
    "EngineError": "engine.errors",
    "EngineState": "engine.supervisor",
    "EngineUnavailableError": "engine.errors",
    "EngineView": "engine.stats",
    "FinishReason": "engine.request",
    "Health": "engine.engine",
    "Histogram": "engine.stats",
    "LATENCY_BOUNDS_S": "engine.stats",
    "Load": "engine.messages",
    "MissReason": "engine.prefix_report",
    "ModelCard": "engine.messages",
    "ModelConfig": "engine.config",
    "ModelSource": "engine.source",
    "OverloadedError": "engine.errors",
    "PrefixCounters": "engine.prefix_report",
    "PrefixReport": "engine.prefix_report",
    "PoolGauges": "engine.stats",
    "RateLimitedError": "engine.errors",
    "RenderedChat": "engine.text.chat_template",
    "Request": "engine.request",
    "RequestError": "engine.errors",
    "RequestRecord": "engine.request_record",
    "RequestStats": "engine.request_record",
    "RetryableError": "engine.errors",
    "RingView": "engine.stats",
    "SamplingParams": "engine.request",
    "SchedulingConfig": "engine.config",
    "SequenceView": "engine.stats",
    "Stats": "engine.insight",
    "StepError": "engine.errors",
    "SupervisionConfig": "engine.config",
    "Tally": "engine.stats",
    "TokenEvent": "engine.stream",
    "TokenLogprob": "engine.text.token_logprob",
    "TokenStream": "engine.stream",
    "Tokenizer": "engine.text.tokenizer",
    "UnknownModelError": "engine.errors",
    "configure_logging": "engine.logs",
    "fetch_demo_model": "engine.source",
    "resolve": "engine.source",
    "shown_ms": "engine.logs",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  the keys are the names; a test compares them with the imports above


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found  # next time it is found without a call
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
