"""The one place where the parts of the engine process are wired together."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.cache.layout import CacheLayout
from engine.cache.pool import CachePool
from engine.config import EngineConfig
from engine.execution.back_end import BackEnd, Placed
from engine.execution.host import (
    choose_mixed_tokens,
    choose_num_threads,
    choose_steps_in_flight,
    may_have_gpu,
    refuse_on_cpu,
)
from engine.execution.native_back_end import NativeBackEnd
from engine.intake import Intake, IntakeRules
from engine.kernels.cpu.choice import choose_native
from engine.loop import LoopParts, StepLoop
from engine.messages import Loading, ModelCard, ToEngine
from engine.metering import StepMeter
from engine.model_spec import ModelSpec
from engine.models.registry import read_spec
from engine.models.weights import Through, as_it_is
from engine.outbox import Outbox
from engine.scheduling.scheduler import Scheduler
from engine.structured.compiler import ModelTokens
from engine.structured.mask import MaskTable

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A loop ready to run, and the parts that live beside it."""

    loop: StepLoop
    intake: Intake
    pool: CachePool
    scheduler: Scheduler
    card: ModelCard


def build_engine(config: EngineConfig, receive: Callable[[], ToEngine | None], outbox: Outbox) -> BuiltEngine:
    """Load the model, plan its memory and wire the loop; progress goes to `outbox` meanwhile.

    Starts no thread and reads nothing from `receive` yet. Raises ConfigError and CheckpointError.
    """
    spec = read_spec(Path(config.model.path)).with_window(config.model.window)
    logger.info(
        "model id=%s family=%s layers=%d window=%s", config.model.model_id, spec.family, spec.num_layers,
        _windows(spec),
    )  # fmt: skip
    num_threads = choose_num_threads(config.model)
    back_end = _choose_back_end(config, spec, num_threads)
    logger.info(
        "device name=%s dtype=%s quantization=%s cache=%s threads=%d kernels=%s", back_end.device_name,
        back_end.dtype, config.model.quantization, back_end.cache_dtype, num_threads, back_end.kernels,
    )  # fmt: skip
    masks = MaskTable()
    placed = back_end.place(masks, lambda stage: _Progress(outbox, stage).report)
    layout, device_type = placed.layout, back_end.device
    _log_memory(layout, spec, placed.weight_bytes)
    pool = CachePool(layout)
    scheduling = replace(
        config.scheduling, max_mixed_tokens=choose_mixed_tokens(config.scheduling, device_type)
    )
    scheduler = Scheduler(scheduling, pool, frozenset(spec.eos_ids))
    rules = IntakeRules(
        layout=layout,
        tokens=ModelTokens(vocab_size=spec.vocab_size, eos_ids=spec.eos_ids),
        has_prefix_cache=config.cache.has_prefix_cache,
    )
    intake = Intake(receive, outbox.put, rules, masks, num_threads=num_threads)
    parts = LoopParts(
        intake=intake, scheduler=scheduler, runner=placed.runner, outbox=outbox, meter=StepMeter(scheduler)
    )
    return BuiltEngine(
        loop=StepLoop(parts, choose_steps_in_flight(config.scheduling, device_type)),
        intake=intake,
        pool=pool,
        scheduler=scheduler,
        card=_model_card(config, spec, back_end, placed),
    )


def _choose_back_end(config: EngineConfig, spec: ModelSpec, num_threads: int) -> BackEnd:
    """The native kernels where they may compute; else torch, which is loaded only then. Raises ConfigError."""
    model = config.model
    through: Through = as_it_is
    if model.quantization != "none":
        from engine.quantization.source import quantizing  # noqa: PLC0415  loads torch

        through = quantizing(model.quantization, Path(model.path))
    is_cpu = model.device == "cpu" or (model.device == "auto" and not may_have_gpu())
    device_type = "cpu" if is_cpu else _device_type(config)
    native = choose_native(device_type, model.dtype, model.kernels, num_threads, config.cache.kv_dtype)
    if native is not None:
        refuse_on_cpu(model, is_native=True)
        return NativeBackEnd(config, spec, native, num_threads=num_threads, through=through)
    from engine.execution.torch_back_end import TorchBackEnd  # noqa: PLC0415  loads torch

    return TorchBackEnd(config, spec, num_threads=num_threads, through=through)


def _device_type(config: EngineConfig) -> str:
    """What torch finds."""
    from engine.execution.device import choose_device  # noqa: PLC0415  loads torch

    return choose_device(config.model).type


class _Progress:
    """Sends Loading messages of a stage, at most ten a second and one at the end."""

    def __init__(self, outbox: Outbox, stage: str) -> None:
        self._outbox = outbox
        self._stage = stage
        self._last_s = 0.0

    def report(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done < total and now_s - self._last_s < PROGRESS_INTERVAL_S:
            return
        self._last_s = now_s
        self._outbox.put(Loading(stage=self._stage, done=done, total=total))


def _log_memory(layout: CacheLayout, spec: ModelSpec, weight_bytes: int) -> None:
    full = min((window for window in spec.layer_windows if window is not None), default=layout.max_context)
    logger.info(
        "memory weights=%.0fMiB blocks=%d block=%.0fKiB block_tokens=%d pool=%.0fMiB "
        "max_context=%d sequences_with_full_window=%d",
        weight_bytes / 2**20, layout.num_blocks, layout.block_bytes / 2**10, layout.block_size,
        layout.num_blocks * layout.block_bytes / 2**20, layout.max_context,
        layout.num_sequences_at(min(full, layout.max_context)),
    )  # fmt: skip


def _model_card(config: EngineConfig, spec: ModelSpec, back_end: BackEnd, placed: Placed) -> ModelCard:
    layout = placed.layout
    windows = set(spec.layer_windows)
    return ModelCard(
        model_id=config.model.model_id,
        family=spec.family,
        device=back_end.device,
        dtype=back_end.dtype,
        vocab_size=spec.vocab_size,
        eos_ids=spec.eos_ids,
        max_context=layout.max_context,
        window=max((window for window in windows if window is not None), default=None),
        weight_bytes=placed.weight_bytes,
        block_size=layout.block_size,
        block_bytes=layout.block_bytes,
        num_blocks=layout.num_blocks,
    )


def _windows(spec: ModelSpec) -> str:
    return ",".join("none" if window is None else str(window) for window in dict.fromkeys(spec.layer_windows))
