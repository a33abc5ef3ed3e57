"""Every knob of the command `ringserve`, read once from flags, environment and defaults.

`--max-step-tokens`, `RINGSERVE_MAX_STEP_TOKENS` and the field `max_step_tokens` are one setting;
a flag wins over the environment. Nothing else reads either. This module knows no routes and
starts nothing: it gives the engine its `EngineConfig` and the server its own values.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import CliPositionalArg, NoDecode, SettingsConfigDict

from engine import (
    DEMO_MODEL,
    CacheConfig,
    EngineConfig,
    ModelConfig,
    ModelSource,
    SchedulingConfig,
    SupervisionConfig,
)
from server.command_line import ENV_PREFIX, Command
from server.keys import DEFAULT_SCOPES, Scopes, digest_of, read_keys


def default_cache_dir() -> Path:
    """The user's cache folder for this program: under XDG_CACHE_HOME, or under ~/.cache without it."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))  # the standard ignores a relative path
    return (root if root.is_absolute() else Path.home() / ".cache") / "ringserve"


class PullSettings(Command):
    """Fetches a model into the cache folder, so that later starts need no network."""

    model_config = SettingsConfigDict(cli_prog_name="ringserve pull")

    model: CliPositionalArg[str] = Field(
        DEMO_MODEL,
        description="A folder in Hugging Face format, a .gguf file, a hub id, or the name of the demo model.",
    )
    cache_dir: Path = Field(
        default_factory=default_cache_dir,
        description="Folder that keeps what was fetched; by default ringserve in the user's cache folder.",
    )


class ChatSettings(PullSettings):
    """Chats in the terminal with a running server, or with one started for it."""

    model_config = SettingsConfigDict(cli_prog_name="ringserve chat")

    url: str | None = Field(
        None,
        description="Address of the server to talk to, without /v1; left out: the one at 127.0.0.1:8000, "
        "or one started for the chat.",
    )
    api_key: SecretStr | None = Field(None, description="API key to send; of a list, the first.")
    system: str | None = Field(None, description="System message that opens the conversation.")
    start_timeout_s: float = Field(600.0, gt=0, description="Seconds a started server may take to be ready.")

    @property
    def first_api_key(self) -> str:
        """The key to send; a word that no server asks for where there is none."""
        return self.api_key.get_secret_value().split(",")[0] if self.api_key else "none"


class SelftestSettings(Command):
    """Tries the promises of a running server: drills that pass, fail or are skipped, each with its reason."""

    model_config = SettingsConfigDict(cli_prog_name="ringserve selftest")

    url: str = Field("http://127.0.0.1:8000", description="Address of the server, without /v1.")
    api_key: SecretStr | None = Field(
        None,
        description="API key to send; one with the scope admin allows every drill. Of a list, the first.",
    )
    requests: int = Field(
        64, ge=1, le=1000, description="How many requests the overload drill sends at once."
    )
    timeout_s: float = Field(120.0, gt=0, description="Seconds that one answer may take.")
    drain_pid: int | None = Field(
        None, ge=2, description="Process id of the server, on this machine: drains it as the last drill."
    )

    @property
    def first_api_key(self) -> str:
        """The key to send; a word that no server asks for where there is none."""
        return self.api_key.get_secret_value().split(",")[0] if self.api_key else "none"


class Settings(PullSettings):
    """Serves a model over HTTP with OpenAI's API."""

    model_config = SettingsConfigDict(cli_prog_name="ringserve serve")

    host: str = Field(
        "127.0.0.1", description="Address to listen on; beyond loopback an API key is required."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    served_model_name: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Model id shown to clients (repeatable, or separated by commas: the others are "
        "aliases); left out: the model's own name.",
    )
    api_key: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="A key that clients must send (repeatable, or separated by commas); only SHA-256 "
        "digests are kept.",
    )
    api_key_file: Path | None = Field(
        None,
        description="File with a key a line, as scope:key; scopes are inference, metrics and admin, and a "
        "key without one has inference.",
    )
    no_auth: bool = Field(False, description="Listen beyond loopback without any API key.")
    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Web origin whose pages may call the API (repeatable, or separated by commas; * for any).",
    )
    ssl_certfile: FilePath | None = Field(
        None, description="TLS certificate chain in PEM form; with it the server speaks HTTPS."
    )
    ssl_keyfile: FilePath | None = Field(
        None, description="TLS private key in PEM form; left out: it is in the certificate's file."
    )
    root_path: str = Field(
        "", pattern=r"^(/[^/\s]+)*$", description="Path under which a proxy shows this server, as /llm."
    )
    unknown_fields: Literal["refuse", "ignore"] = Field(
        "refuse", description="What happens to unknown fields of a body: refuse or ignore."
    )
    max_logprobs: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Most alternatives told for a token; left out: 5 in completions, 20 in chat and prompts.",
    )
    chat_template: FilePath | None = Field(
        None, description="A jinja2 file in the place of the model's own chat template."
    )
    tool_format: Literal["auto", "hermes", "mistral", "llama3", "json", "none"] = Field(
        "auto",
        description="How the model writes calls of functions; auto: by its chat template; none: no tools.",
    )
    reasoning_format: Literal["auto", "think", "mistral", "none"] = Field(
        "auto",
        description="How the model marks its reasoning: <think> or [THINK]; auto: by its chat template.",
    )
    device: str = Field("auto", description="Where the model runs: auto, cpu or cuda.")
    dtype: str = Field(
        "auto", description="Type of weights and cache: auto, float32, bfloat16, float16 or float64."
    )
    kernels: str = Field(
        "auto",
        description="Which implementation of the operations: auto, native (CPU), triton (GPU) or reference.",
    )
    quantization: str = Field(
        "none",
        description="Matrices of a safetensors model as they are loaded: none, int8 or int4 (in groups of 32), or on "
        "Ada and Hopper GPUs fp8 (a scale for each row).",
    )
    kv_dtype: str = Field(
        "auto",
        description="Type of the cache alone: auto, float32, bfloat16, int8 or fp8; on a CPU others than bfloat16 and "
        "int8 take the reference kernels.",
    )
    cpu_threads: int | None = Field(
        None, description="Threads of the engine; left out: the cores it may use."
    )
    eager: bool = Field(
        False,
        description="Launch every kernel of every step on a GPU, instead of replaying recorded decode steps; on a CPU "
        "nothing is recorded anyway.",
    )
    deterministic: bool = Field(
        False,
        description="Give a sequence the same tokens alone and in company: on a GPU at a price, on a CPU with the "
        "native kernels as always.",
    )
    window: int | None = Field(
        None, description="Sliding window in tokens, imposed on a model trained without: an approximation."
    )
    max_context: int | None = Field(
        None, description="Most tokens, prompt and output together, of one request; left out: as many as fit."
    )
    max_step_tokens: int = Field(512, description="Most tokens that one step of the engine computes.")
    max_chunk_tokens: int = Field(256, description="Most tokens of one sequence in one step.")
    max_mixed_tokens: int | None = Field(
        None,
        description="Most prompt tokens of a step in which other answers go on: fewer let those wait less; "
        "left out: 128 on a CPU, as many as the step has room for on a GPU.",
    )
    max_running: int = Field(64, description="Most sequences computed at the same time.")
    max_waiting: int = Field(
        256, description="Most sequences that wait for a place; beyond it the answer is 503."
    )
    max_per_key: int | None = Field(
        None,
        description="Most sequences, running or waiting, of one API key; beyond it the answer is 429. "
        "Without keys all callers count as one.",
    )
    admission: str = Field(
        "optimistic",
        description="When a request begins: optimistic, once what it needs now is free (it may have to be "
        "computed again), or guaranteed, once the worst case of all fits.",
    )
    priority_ageing_s: float = Field(
        30.0, description="Seconds of waiting that make up for one point of priority."
    )
    steps_in_flight: int | None = Field(
        None,
        description="Steps begun before the first of them is finished: 1, or 2 so that a GPU never waits for the "
        "host; left out: 2 on a GPU, 1 on a CPU.",
    )
    request_timeout_s: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Seconds after which a request ends with a 504, queued or running; left out: never.",
    )
    block_size: int = Field(16, description="Tokens in one block of the cache pool.")
    kv_cache_bytes: ByteSize | None = Field(
        None,
        description="Size of the cache pool, as 256MiB or 2GiB; left out: 256MiB on a CPU, what "
        "memory_fraction leaves on a GPU.",
    )
    no_prefix_cache: bool = Field(
        False, description="Compute every prompt anew, instead of keeping what others may begin with."
    )
    memory_fraction: float = Field(0.9, description="Share of a GPU's memory for weights and cache pool.")
    start_timeout_s: float = Field(600.0, description="Seconds the engine may take to load the model.")
    step_timeout_s: float = Field(30.0, description="Seconds without a sign of life before a restart.")
    max_restarts: int = Field(5, description="Restarts of the engine within the window before giving up.")
    restart_window_s: float = Field(300.0, description="Seconds over which restarts are counted.")
    drain_s: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that running requests get when the server is stopped.",
    )
    stop_at_eof: bool = Field(
        False, description="Stop when standard input ends: for a server that another program starts."
    )
    max_body_bytes: ByteSize = Field(
        ByteSize(8 << 20), ge=1, description="Largest request body, as 8MiB; beyond it the answer is 413."
    )
    client_timeout_s: float = Field(
        60.0, gt=0, le=1e6, description="Seconds a client may take to send, or take nothing of its answer."
    )
    log_level: str = Field("info", description="Least severe log lines shown: debug, info, warning or error.")
    log_format: str = Field("text", description="Form of log lines: text, or json with an object a line.")
    otlp_endpoint: str | None = Field(
        None,
        description="Address of an OpenTelemetry collector that gets traces, over HTTP; needs the extra otlp.",
    )

    @field_validator("api_key", "served_model_name", "cors_origin", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("served_model_name", "cors_origin", mode="after")
    @classmethod
    def _refuse_empty(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        stripped = tuple(value.strip() for value in values)
        if "" in stripped:
            raise ValueError("an empty value must not be among them")
        return stripped

    @field_validator("api_key", mode="after")
    @classmethod
    def _digest_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        stripped = tuple(key.strip() for key in keys)
        if "" in stripped:
            raise ValueError("an API key must not be empty")
        return tuple(map(digest_of, stripped))

    @field_validator("api_key_file", mode="after")
    @classmethod
    def _check_key_file(cls, file: Path | None) -> Path | None:
        if file is not None and not read_keys(file):
            raise ValueError("the file has no key")
        return file

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("--ssl-keyfile needs --ssl-certfile")
        return self

    @property
    def scopes_by_digest(self) -> dict[str, Scopes]:
        """Every key's digest with what it may do; those from flags and environment may generate."""
        from_file = {} if self.api_key_file is None else read_keys(self.api_key_file)
        merged = dict(from_file)
        for digest in self.api_key:
            merged[digest] = merged.get(digest, frozenset()) | DEFAULT_SCOPES
        return merged

    @model_validator(mode="after")
    def _protect_the_network(self) -> Self:
        if not (_is_loopback(self.host) or self.api_key or self.api_key_file or self.no_auth):
            raise ValueError(
                f"--host is {self.host!r}, which others can reach, and there is no API key; give --api-key "
                f"(or {ENV_PREFIX}API_KEY), or --no-auth to serve everyone"
            )
        return self

    @model_validator(mode="after")
    def _check_engine_settings(self) -> Self:
        """Let the engine's own types refuse what they would refuse later, after a model was fetched."""
        self.to_engine_config(ModelSource(path=Path(self.model), model_id=self.model))
        return self

    def to_engine_config(self, source: ModelSource) -> EngineConfig:
        """The engine's part of these settings, for the model at `source`.

        Raises ConfigError for a value that the engine cannot use.
        """
        return EngineConfig(
            model=ModelConfig(
                path=str(source.path),
                model_id=next(iter(self.served_model_name), source.model_id),
                device=self.device,
                dtype=self.dtype,
                kernels=self.kernels,
                quantization=self.quantization,
                window=self.window,
                max_context=self.max_context,
                cpu_threads=self.cpu_threads,
                eager=self.eager,
                deterministic=self.deterministic,
                chat_template=None if self.chat_template is None else str(self.chat_template),
            ),
            cache=CacheConfig(
                block_size=self.block_size,
                kv_cache_bytes=None if self.kv_cache_bytes is None else int(self.kv_cache_bytes),
                memory_fraction=self.memory_fraction,
                has_prefix_cache=not self.no_prefix_cache,
                kv_dtype=self.kv_dtype,
            ),
            scheduling=SchedulingConfig(
                max_step_tokens=self.max_step_tokens,
                max_chunk_tokens=self.max_chunk_tokens,
                max_mixed_tokens=self.max_mixed_tokens,
                max_running=self.max_running,
                max_waiting=self.max_waiting,
                max_per_key=self.max_per_key,
                admission=self.admission,
                priority_ageing_s=self.priority_ageing_s,
                steps_in_flight=self.steps_in_flight,
            ),
            supervision=SupervisionConfig(
                start_timeout_s=self.start_timeout_s,
                step_timeout_s=self.step_timeout_s,
                max_restarts=self.max_restarts,
                restart_window_s=self.restart_window_s,
            ),
            log_level=self.log_level,
            log_format=self.log_format,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
