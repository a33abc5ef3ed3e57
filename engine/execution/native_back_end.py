"""`NativeBackEnd`: the native kernels on a CPU, from the checkpoint's bytes to the runner, without torch.

Importing torch takes longer than all else of a small model's start. Only a folder of safetensors files
still needs it, to read them.
"""

from pathlib import Path

from engine.cache.layout import plan_layout
from engine.cache.native_store import HEAD_FORMATS, NativeStore
from engine.config import EngineConfig
from engine.execution.back_end import Placed, Report, cache_demand
from engine.execution.host import cpu_cache_bytes
from engine.execution.native_runner import NativeRunner
from engine.execution.native_sampler import NativeSampler
from engine.execution.row_answers import MaskSource
from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.sampling import NativeSampling
from engine.model_spec import ModelSpec
from engine.models.fused import FusedDecoder
from engine.models.native_weights import NativeWeights
from engine.models.weights import Through


class NativeBackEnd:
    """Implements `BackEnd`."""

    device = "cpu"
    device_name = "cpu"
    dtype = "bfloat16"

    def __init__(
        self,
        config: EngineConfig,
        spec: ModelSpec,
        kernels: KernelContext,
        *,
        num_threads: int,
        through: Through,
    ) -> None:
        """The weights are read `through` what `open_source` tells of, on `num_threads` threads."""
        self.kernels = f"native-{kernels.level}"
        self.cache_dtype = self.dtype if config.cache.kv_dtype == "auto" else config.cache.kv_dtype
        self._config = config
        self._spec = spec
        self._kernels = kernels
        self._num_threads = num_threads
        self._through = through

    def place(self, masks: MaskSource, report: Report) -> Placed:
        """Read the weights and make the cache. Raises what `BackEnd` says."""
        config, spec, kernels = self._config, self._spec, self._kernels
        head = HEAD_FORMATS[self.cache_dtype]
        demand = cache_demand(config, cpu_cache_bytes(config.cache), head.element_bytes, head.scale_bytes)
        layout = plan_layout(spec, demand)
        path = Path(config.model.path)
        if path.is_dir():
            _keep_torch_to_one_thread()
        weights = NativeWeights.empty(spec, kernels.library)
        weights.fill(path, self._num_threads, report("weights"), self._through)
        store = NativeStore.allocate(layout, spec, self.cache_dtype)
        model = FusedDecoder(weights, kernels, store, layout.block_size)
        runner = NativeRunner(model, NativeSampler(NativeSampling(kernels)), masks=masks)
        return Placed(layout=layout, runner=runner, weight_bytes=weights.num_bytes)


def _keep_torch_to_one_thread() -> None:
    """Several read the folder already, and later threads of its own would hold up those of the kernels."""
    import torch  # noqa: PLC0415  needed for folders alone

    torch.set_num_threads(1)
