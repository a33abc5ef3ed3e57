"""`TorchBackEnd`: a model in torch, by the reference on any device or by Triton's kernels on a GPU."""

from pathlib import Path

import torch

from engine.cache.layout import CacheDemand, plan_layout
from engine.cache.store import CacheStore
from engine.config import EngineConfig
from engine.execution.back_end import Placed, Report, cache_demand
from engine.execution.device import choose_cache_dtype, choose_device, choose_dtype
from engine.execution.gpu_kernels import GpuKernels, capability_of, choose_gpu_kernels, refuse_impossible
from engine.execution.host import cpu_cache_bytes, refuse_on_cpu
from engine.execution.link import CudaLink
from engine.execution.memory_plan import CudaMeter, explained_shortage
from engine.execution.placement import Gpu, place_on_gpu
from engine.execution.row_answers import MaskSource
from engine.execution.runner import ModelRunner
from engine.execution.trial import TrialParts
from engine.kernels.cached import scale_bytes
from engine.kernels.ops import select_ops
from engine.layers.kit import LayerKit
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder
from engine.models.loader import load_decoder
from engine.models.weights import OnProgress, Through


class TorchBackEnd:
    """Implements `BackEnd`."""

    def __init__(
        self,
        config: EngineConfig,
        spec: ModelSpec,
        *,
        num_threads: int,
        through: Through,
    ) -> None:
        """On the device that `config` names, on a CPU with `num_threads` threads. Raises ConfigError."""
        device = choose_device(config.model)
        torch.set_num_threads(num_threads)
        self._config = config
        self._spec = spec
        self._through = through
        self._torch_device = device
        dtype = choose_dtype(config.model, device)
        if device.type == "cuda":
            refuse_impossible(config.model, config.cache, capability_of(device), dtype)
        else:
            refuse_on_cpu(config.model, is_native=False)
        self._gpu = self._gpu_kernels(dtype) if device.type == "cuda" else None
        self._kit = self._gpu.kit if self._gpu is not None else self._dense_kit(dtype)
        self._cache_dtype = choose_cache_dtype(config.cache, dtype)
        self.device = str(device)
        self.device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.dtype, self.cache_dtype = name_of(dtype), name_of(self._cache_dtype)
        self.kernels = "reference" if self._gpu is None else self._gpu.name

    def place(self, masks: MaskSource, report: Report) -> Placed:
        """Read the weights and make the cache. Raises what `BackEnd` says."""
        if self._gpu is not None:
            return self._place_on_gpu(self._gpu, masks, report)
        layout = plan_layout(self._spec, self._demand())
        decoder = self._load(report("weights"))
        store = CacheStore.allocate(layout, self._spec, device=self._torch_device, dtype=self._cache_dtype)
        runner = ModelRunner(decoder, store, layout, masks=masks)
        return Placed(layout=layout, runner=runner, weight_bytes=decoder.weight_bytes)

    def _place_on_gpu(self, gpu: GpuKernels, masks: MaskSource, report: Report) -> Placed:
        config, device = self._config, self._torch_device
        with explained_shortage(CudaMeter(device), "loading weights"):
            decoder = self._load(report("weights"))
        parts = TrialParts(
            model=decoder, spec=self._spec, demand=self._demand(), scheduling=config.scheduling,
            link=CudaLink(device), masks=masks, device=device, dtype=self._cache_dtype, draw=gpu.draw,
        )  # fmt: skip
        # The reference attends a recorded step over whole tables: far more than it would have to.
        is_eager = config.model.eager or gpu.name == "reference"
        placement = place_on_gpu(
            Gpu.at(device), parts, config.cache, is_eager=is_eager, report=report("decode steps")
        )
        return Placed(layout=placement.layout, runner=placement.runner, weight_bytes=decoder.weight_bytes)

    def _demand(self) -> CacheDemand:
        config, dtype = self._config, self._cache_dtype
        return cache_demand(config, cpu_cache_bytes(config.cache), dtype.itemsize, scale_bytes(dtype))

    def _load(self, on_progress: OnProgress) -> Decoder:
        path = Path(self._config.model.path)
        return load_decoder(path, self._spec, self._kit, on_progress, self._through)

    def _gpu_kernels(self, dtype: torch.dtype) -> GpuKernels:
        model = self._config.model
        return choose_gpu_kernels(
            model, self._torch_device, dtype, model.max_context or self._spec.max_context
        )

    def _dense_kit(self, dtype: torch.dtype) -> LayerKit:
        ops = select_ops(self._torch_device, dtype, self._config.model.kernels)
        return LayerKit.dense(ops, self._torch_device, dtype)


def name_of(dtype: torch.dtype) -> str:
    """Its name without the library's."""
    return str(dtype).removeprefix("torch.")
