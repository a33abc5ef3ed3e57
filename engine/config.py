"""What the engine is told at start: frozen, validated, in plain units.

`server/settings.py` builds one `EngineConfig` from flags and environment; it reaches the engine
process as the first message on the channel. Values *found* at start-up (how many blocks fit, which
dtype a checkpoint has) never come back here: they become a `CacheLayout` or a `ModelCard`.
"""

from dataclasses import dataclass, field

from engine.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
KERNELS = ("auto", "native", "reference", "triton")
QUANTIZATIONS = ("none", "int8", "int4", "fp8")
KV_DTYPES = ("auto", "float32", "bfloat16", "int8", "fp8")
ADMISSIONS = ("optimistic", "guaranteed")
MAX_AGEING_S = 1e6  # beyond it sums with a time of arrival lose their microseconds
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model to load, onto what.

    `path` is a folder in Hugging Face format or a `.gguf` file; `window` imposes a sliding window
    on every layer (None keeps the checkpoint's own); `max_context` bounds prompt plus output in
    tokens (None: what the model and the pool allow); `cpu_threads` None means the cores this
    process may use; `chat_template` is a file in the place of the checkpoint's own template.
    `quantization` is for the matrices of a folder, as they are loaded. `eager` records no steps on a GPU;
    with `deterministic` a sequence gets the same tokens alone and in company, on any device.
    """

    path: str
    model_id: str
    device: str = "auto"
    dtype: str = "auto"
    kernels: str = "auto"
    quantization: str = "none"
    window: int | None = None
    max_context: int | None = None
    cpu_threads: int | None = None
    chat_template: str | None = None
    eager: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        _one_of("device", self.device, DEVICES)
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("kernels", self.kernels, KERNELS)
        _one_of("quantization", self.quantization, QUANTIZATIONS)
        for name in ("window", "max_context", "cpu_threads"):
            value = getattr(self, name)
            if value is not None:
                _at_least(name, value, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The size of the block pool, and what it holds.

    `kv_cache_bytes` None means 256 MiB on a CPU; on a GPU, what `memory_fraction` of the device's
    memory leaves after the weights. With `has_prefix_cache`, what a sequence computed stays for
    others with the same beginning until its blocks are needed. `kv_dtype` auto means what the kernels
    compute with.
    """

    block_size: int = 16
    kv_cache_bytes: int | None = None
    memory_fraction: float = 0.9
    has_prefix_cache: bool = True
    kv_dtype: str = "auto"

    def __post_init__(self) -> None:
        _at_least("block_size", self.block_size, 1)
        _one_of("kv_dtype", self.kv_dtype, KV_DTYPES)
        if self.kv_cache_bytes is not None:
            _at_least("kv_cache_bytes", self.kv_cache_bytes, 1)
        if not 0.0 < self.memory_fraction <= 1.0:
            raise ConfigError(f"memory_fraction is {self.memory_fraction}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig:
    """What one step may hold, and how many sequences there may be.

    `max_step_tokens` is the token budget of a step; `max_chunk_tokens` the most uncommitted
    positions of one sequence (the C of the ring); `max_mixed_tokens` the budget of longer chunks in a
    step that also decodes, None for 128 on a CPU and for no bound of its own on a GPU;
    `steps_in_flight` 1, or 2 with look-ahead; None is 2 on a GPU, and 1 on a CPU, which computes a
    step while it is begun.
    `max_per_key` is the most sequences of one caller, None for no limit of its own. With
    `admission` optimistic a sequence begins when what it needs now is free, with guaranteed when
    the worst case of all is. A point of priority weighs `priority_ageing_s` seconds of waiting.
    """

    max_step_tokens: int = 512
    max_chunk_tokens: int = 256
    max_mixed_tokens: int | None = None
    max_running: int = 64
    max_waiting: int = 256
    max_per_key: int | None = None
    admission: str = "optimistic"
    priority_ageing_s: float = 30.0
    steps_in_flight: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_step_tokens", "max_chunk_tokens", "max_running"):
            _at_least(name, getattr(self, name), 1)
        _at_least("max_waiting", self.max_waiting, 0)
        for name in ("max_per_key", "max_mixed_tokens"):
            if (value := getattr(self, name)) is not None:
                _at_least(name, value, 1)
        _one_of("admission", self.admission, ADMISSIONS)
        if not 0 < self.priority_ageing_s <= MAX_AGEING_S:
            raise ConfigError(
                f"priority_ageing_s is {self.priority_ageing_s}; it must be above 0 and at most {MAX_AGEING_S:g}"
            )
        if self.max_step_tokens < self.max_running:
            raise ConfigError(
                f"max_step_tokens is {self.max_step_tokens}, below max_running {self.max_running}; a step must "
                "have room for one token of every running sequence"
            )
        if self.steps_in_flight not in (None, 1, 2):
            raise ConfigError(f"steps_in_flight is {self.steps_in_flight}; it must be 1 or 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionConfig:
    """How long the supervisor waits, and how often it starts the engine process again."""

    start_timeout_s: float = 600.0
    step_timeout_s: float = 30.0
    max_restarts: int = 5
    restart_window_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("start_timeout_s", "step_timeout_s", "restart_window_s"):
            value = getattr(self, name)
            if value <= 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
        _at_least("max_restarts", self.max_restarts, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The whole configuration of one engine, sent to its process when it starts."""

    model: ModelConfig
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        _one_of("log_level", self.log_level, LOG_LEVELS)
        _one_of("log_format", self.log_format, LOG_FORMATS)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
