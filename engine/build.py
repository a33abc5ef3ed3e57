"""The one place where the parts of the engine process are wired together."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.cache.layout import CacheDemand, CacheLayout, plan_layout
from engine.cache.pool import CachePool
from engine.cache.store import CacheStore
from engine.config import EngineConfig
from engine.execution.device import (
    choose_cache_dtype,
    choose_device,
    choose_dtype,
    choose_mixed_tokens,
    choose_steps_in_flight,
    cpu_cache_bytes,
    requested_dtype,
    set_cpu_threads,
)
from engine.execution.gpu_kernels import GpuKernels, capability_of, choose_gpu_kernels, refuse_impossible
from engine.execution.link import CudaLink
from engine.execution.memory_plan import CudaMeter, explained_shortage
from engine.execution.native_runner import NativeRunner
from engine.execution.native_sampler import NativeSampler
from engine.execution.placement import Gpu, place_on_gpu
from engine.execution.runner import ModelRunner
from engine.execution.trial import TrialParts
from engine.intake import Intake, IntakeRules
from engine.kernels.cached import scale_bytes
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.cpu.sampling import NativeSampling
from engine.kernels.ops import native_ops, select_native, select_ops
from engine.layers.kit import LayerKit
from engine.loop import LoopParts, StepLoop
from engine.messages import Loading, ModelCard, ToEngine
from engine.metering import StepMeter
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder
from engine.models.fused import FusedDecoder
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from engine.outbox import Outbox
from engine.plan import Runner
from engine.quantization.source import quantizing
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
    device = choose_device(config.model)
    num_threads = set_cpu_threads(config.model)
    spec = read_spec(Path(config.model.path)).with_window(config.model.window)
    logger.info(
        "model id=%s family=%s layers=%d window=%s", config.model.model_id, spec.family, spec.num_layers,
        _windows(spec),
    )  # fmt: skip
    through = quantizing(config.model.quantization, Path(config.model.path))
    kernels = _choose_kernels(config, spec, device, num_threads)
    dtype = choose_cache_dtype(config.cache, kernels.dtype)
    logger.info(
        "device name=%s dtype=%s quantization=%s cache=%s threads=%d kernels=%s", _device_name(device),
        _dtype_name(kernels.dtype), config.model.quantization, _dtype_name(dtype), num_threads, kernels.name,
    )  # fmt: skip
    # A pool that cannot work is refused before the weights are read, where its size is known by then.
    place = _placement(config, spec, kernels, (device, dtype))
    with _explained(device):
        decoder = load_decoder(
            Path(config.model.path), spec, kernels.kit, _Progress(outbox, "weights").report, through
        )
    masks = MaskTable()
    layout, runner = place(decoder, masks, _Progress(outbox, "decode steps").report)
    _log_memory(layout, spec, decoder)
    pool = CachePool(layout)
    scheduling = replace(config.scheduling, max_mixed_tokens=choose_mixed_tokens(config.scheduling, device))
    scheduler = Scheduler(scheduling, pool, frozenset(spec.eos_ids))
    rules = IntakeRules(
        layout=layout,
        tokens=ModelTokens(vocab_size=spec.vocab_size, eos_ids=spec.eos_ids),
        has_prefix_cache=config.cache.has_prefix_cache,
    )
    intake = Intake(receive, outbox.put, rules, masks, num_threads=num_threads)
    parts = LoopParts(
        intake=intake, scheduler=scheduler, runner=runner, outbox=outbox, meter=StepMeter(scheduler)
    )
    return BuiltEngine(
        loop=StepLoop(parts, choose_steps_in_flight(config.scheduling, device)),
        intake=intake,
        pool=pool,
        scheduler=scheduler,
        card=_model_card(config, spec, layout, (device, kernels.dtype), decoder.weight_bytes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernels:
    """What computes: the kit that layers are built with, the native kernels if any, the GPU's if any.

    `dtype` is what keys and values are computed in; the native kernels' is rounded to bfloat16.
    """

    kit: LayerKit
    dtype: torch.dtype
    native: NativeKernels | None = None
    gpu: GpuKernels | None = None

    @property
    def name(self) -> str:
        if self.gpu is not None:
            return self.gpu.name
        return "reference" if self.native is None else f"native-{self.native.level}"

    def runner(self, decoder: Decoder, store: CacheStore, layout: CacheLayout, masks: MaskTable) -> Runner:
        """What computes steps with the decoder, once its weights are loaded."""
        if self.native is None:
            return ModelRunner(decoder, store, layout, masks=masks)
        torch.set_num_threads(1)  # the kernels have threads of their own; two pools would hold up each other
        model = FusedDecoder(decoder, self.native, store.layers, layout.block_size)
        return NativeRunner(model, NativeSampler(NativeSampling(self.native)), masks=masks)


def _choose_kernels(
    config: EngineConfig, spec: ModelSpec, device: torch.device, num_threads: int
) -> _Kernels:
    native = select_native(
        device, requested_dtype(config.model), config.model.kernels, num_threads, config.cache.kv_dtype
    )
    dtype = choose_dtype(config.model, device)
    refuse_impossible(
        config.model, config.cache, capability_of(device), is_native=native is not None, dtype=dtype
    )
    if native is not None:
        return _Kernels(kit=LayerKit.packed(native_ops(native), native), dtype=torch.bfloat16, native=native)
    if device.type == "cuda":
        gpu = choose_gpu_kernels(config.model, device, dtype, config.model.max_context or spec.max_context)
        return _Kernels(kit=gpu.kit, dtype=dtype, gpu=gpu)
    ops = select_ops(device, dtype, config.model.kernels)
    return _Kernels(kit=LayerKit.dense(ops, device, dtype), dtype=dtype)


Place = Callable[[Decoder, MaskTable, Callable[[int, int], None]], tuple[CacheLayout, Runner]]


def _placement(
    config: EngineConfig, spec: ModelSpec, kernels: _Kernels, place: tuple[torch.device, torch.dtype]
) -> Place:
    """How cache and runner are made once the weights are there.

    On a CPU the pool is planned at once: one that cannot work is refused before the weights are read.
    """
    device, dtype = place
    demand = CacheDemand(
        block_size=config.cache.block_size,
        cache_bytes=cpu_cache_bytes(config.cache),
        max_chunk_tokens=config.scheduling.max_chunk_tokens,
        element_bytes=dtype.itemsize,
        max_context=config.model.max_context,
        scale_bytes=scale_bytes(dtype),
    )
    gpu = kernels.gpu
    if gpu is not None:
        return lambda decoder, masks, report: _on_gpu(
            config, kernels.name, TrialParts(
                model=decoder, spec=spec, demand=demand, scheduling=config.scheduling, link=CudaLink(device),
                masks=masks, device=device, dtype=dtype, draw=gpu.draw,
            ), report,
        )  # fmt: skip
    layout = plan_layout(spec, demand)

    def on_cpu(
        decoder: Decoder, masks: MaskTable, _: Callable[[int, int], None]
    ) -> tuple[CacheLayout, Runner]:
        store = CacheStore.allocate(layout, spec, device=device, dtype=dtype)
        return layout, kernels.runner(decoder, store, layout, masks)

    return on_cpu


def _explained(device: torch.device) -> AbstractContextManager[None]:
    """Weights that a GPU has no memory for are a setting that cannot work; a CPU's are the system's affair."""
    if device.type == "cuda":
        return explained_shortage(CudaMeter(device), "loading weights")
    return nullcontext()


def _on_gpu(
    config: EngineConfig, name: str, parts: TrialParts, report: Callable[[int, int], None]
) -> tuple[CacheLayout, Runner]:
    # The reference attends a recorded step over whole tables: far more than it would have to.
    is_eager = config.model.eager or name == "reference"
    placement = place_on_gpu(Gpu.at(parts.device), parts, config.cache, is_eager=is_eager, report=report)
    return placement.layout, placement.runner


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


def _log_memory(layout: CacheLayout, spec: ModelSpec, decoder: Decoder) -> None:
    full = min((window for window in spec.layer_windows if window is not None), default=layout.max_context)
    logger.info(
        "memory weights=%.0fMiB blocks=%d block=%.0fKiB block_tokens=%d pool=%.0fMiB "
        "max_context=%d sequences_with_full_window=%d",
        decoder.weight_bytes / 2**20, layout.num_blocks, layout.block_bytes / 2**10, layout.block_size,
        layout.num_blocks * layout.block_bytes / 2**20, layout.max_context,
        layout.num_sequences_at(min(full, layout.max_context)),
    )  # fmt: skip


def _model_card(
    config: EngineConfig,
    spec: ModelSpec,
    layout: CacheLayout,
    place: tuple[torch.device, torch.dtype],
    weight_bytes: int,
) -> ModelCard:
    windows = set(spec.layer_windows)
    return ModelCard(
        model_id=config.model.model_id,
        family=spec.family,
        device=str(place[0]),
        dtype=_dtype_name(place[1]),
        vocab_size=spec.vocab_size,
        eos_ids=spec.eos_ids,
        max_context=layout.max_context,
        window=max((window for window in windows if window is not None), default=None),
        weight_bytes=weight_bytes,
        block_size=layout.block_size,
        block_bytes=layout.block_bytes,
        num_blocks=layout.num_blocks,
    )


def _windows(spec: ModelSpec) -> str:
    return ",".join("none" if window is None else str(window) for window in dict.fromkeys(spec.layer_windows))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
