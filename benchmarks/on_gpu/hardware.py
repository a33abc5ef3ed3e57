"""What the machine is, and what its memory and its matrix units reach: the limits as they are here."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.limits import H100_BANDWIDTH, H100_FLOPS
from benchmarks.on_gpu.place import Place


def hardware(place: Place) -> Figures:
    """Names, versions, bytes and operations a second."""
    figures: Figures = {
        "device": torch.cuda.get_device_name() if place.device.type == "cuda" else platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "cuda": str(torch.version.cuda),
    }
    if place.device.type == "cuda":
        properties = torch.cuda.get_device_properties(place.device)
        figures["multiprocessors"] = properties.multi_processor_count
        figures["memory_gib"] = properties.total_memory / (1 << 30)
    return figures | _bandwidth(place) | _products(place)


def version_of(package: str) -> str:
    """A package's version, or that there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _bandwidth(place: Place) -> Figures:
    """Of a copy, counting what is read and what is written; and of reading alone, as a decode step does."""
    source = torch.ones(place.size(1 << 30, 1 << 18), dtype=torch.int32, device=place.device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / place.seconds(lambda: target.copy_(source))
    read = source.nbytes / place.seconds(source.amax)
    return {
        "copy_gb_per_s": copied / 1e9,
        "read_gb_per_s": read / 1e9,
        "copy_of_assumed": copied / H100_BANDWIDTH,
    }


def _products(place: Place) -> Figures:
    size = place.size(8192, 128)
    left = torch.randn(size, size, device=place.device).to(place.dtype)
    right = torch.randn(size, size, device=place.device).to(place.dtype)
    flops = 2 * size**3 / place.seconds(lambda: left @ right.T)
    figures: Figures = {"product_tflops": flops / 1e12, "product_of_assumed": flops / H100_FLOPS}
    one = torch.ones((), device=place.device)
    narrow = [matrix.to(torch.float8_e4m3fn) for matrix in (left, right)]
    seconds = place.seconds(
        lambda: torch._scaled_mm(narrow[0], narrow[1].T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    )
    figures["fp8_product_tflops"] = 2 * size**3 / seconds / 1e12
    return figures
