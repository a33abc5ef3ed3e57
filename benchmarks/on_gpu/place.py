"""`Place`: where a part is measured, and how large: on a GPU in earnest, or tiny on the host, to try the script."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.on_gpu.shapes import mistral_7b, tiny
from engine.execution.link import CudaLink, HostLink
from engine.execution.placement import Gpu
from engine.model_spec import ModelSpec

MIB = 1 << 20
REPEATS_IN_ONE = 10


class HostMeter:
    """A device of 64 MiB, of which half is free."""

    def free(self) -> tuple[int, int]:
        return 32 * MIB, 64 * MIB

    def peak_of(self, act: Callable[[], None]) -> int:
        act()
        return MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device, the dtype that is measured on it, and whether all sizes are tiny."""

    device: torch.device
    dtype: torch.dtype
    is_tiny: bool

    @classmethod
    def choose(cls, *, is_tiny: bool) -> "Place":
        """The GPU, or for a tiny run the host. Raises SystemExit where there is no GPU."""
        if is_tiny:
            return cls(device=torch.device("cpu"), dtype=torch.float32, is_tiny=True)
        if not torch.cuda.is_available():
            raise SystemExit("torch sees no CUDA device; --tiny tries the script without one")
        return cls(device=torch.device("cuda"), dtype=torch.bfloat16, is_tiny=False)

    @property
    def spec(self) -> ModelSpec:
        """The model that is measured."""
        return tiny() if self.is_tiny else mistral_7b()

    @property
    def gpu(self) -> Gpu:
        """The device as a placement asks for it."""
        return Gpu(meter=HostMeter(), new_link=HostLink) if self.is_tiny else Gpu.at(self.device)

    def size(self, real: int, small: int) -> int:
        """A number of the measurement: `small` on a tiny run."""
        return small if self.is_tiny else real

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, act: Callable[[], object], repeats: int = 20) -> float:
        """The median time of `act` on the device, warmed up.

        On a GPU it is recorded several times over and replayed, so that no launch is timed with it.
        """
        if self.device.type != "cuda":
            act()
            return median(_host_seconds(act) for _ in range(self.size(repeats, 2)))
        done = torch.zeros((), device=self.device)

        def several() -> torch.Tensor:
            for _ in range(REPEATS_IN_ONE):
                act()
            return done

        replay = CudaLink(self.device).record(several)
        replay()
        return median(_device_seconds(replay) for _ in range(repeats)) / REPEATS_IN_ONE


def _host_seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _device_seconds(act: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    act()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
