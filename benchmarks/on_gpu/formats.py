"""What each format costs in accuracy: a prompt's log-probabilities beside those of the same weights in float32.

On the small model of the checks, whose weights are random: what is found tells formats apart, and whether one
is broken; how much a real model loses is told by `benchmarks.perplexity` and docs/gpu.md.
"""

import torch

from benchmarks.on_gpu.correctness import small_place
from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.ops import kernels_for
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.prompt import chunked_logits
from benchmarks.on_gpu.shapes import tiny
from engine.execution.device import CACHE_DTYPES
from engine.kernels.ops import REFERENCE
from engine.layers.kit import LayerKit
from engine.layers.rounded import RoundedLinear
from engine.models.blocks import LlamaBlock
from engine.models.decoder import Decoder

PROMPT = [3 + 37 * number % 250 for number in range(120)]
SPREAD = 0.12  # narrower than for laws: sharp logits would make any rounding look large


def formats(place: Place) -> Figures:
    """Mean and largest |Δ| of log-probabilities, by format of weights and of the cache."""
    exact = logprobs(LayerKit.dense(REFERENCE, place.device, torch.float32), place, None)
    small = small_place(place, torch.bfloat16)
    figures: Figures = {}
    for quantization, cache in (
        ("none", "auto"), ("none", "int8"), ("none", "fp8"), ("fp8", "auto"), ("fp8", "fp8")
    ):  # fmt: skip
        kit = kernels_for(small, quantization).kit
        error = (logprobs(kit, place, CACHE_DTYPES.get(cache)) - exact).abs()
        name = f"weights {'bfloat16' if quantization == 'none' else quantization}, cache {cache}"
        figures[name] = {"mean": error.mean().item(), "largest": error.max().item()}
    return figures


def logprobs(kit: LayerKit, place: Place, cache_dtype: torch.dtype | None) -> torch.Tensor:
    """[T, V] of the prompt, with the same weights in any kit."""
    decoder = Decoder(tiny(), kit, LlamaBlock)
    dense = Decoder(tiny(), LayerKit.dense(REFERENCE, torch.device("cpu"), torch.float32), LlamaBlock)
    own = dict(decoder.named_modules())
    for number, (name, weight) in enumerate(dense.named_parameters()):
        values = SPREAD * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        values = 1.0 + values if "norm" in name else values
        module = own[name.rpartition(".")[0]]
        if isinstance(module, RoundedLinear):
            module.take(0, values)
        else:
            decoder.get_parameter(name).data.copy_(values)
    return torch.log_softmax(chunked_logits(decoder, PROMPT, place.device, cache_dtype), dim=-1)
