"""The models that are measured, made of random weights where they are computed: no file is read.

Weights are random, not zeros: the power that multiplying takes, and with it the clock, depends on them.
"""

import torch

from engine.layers.kit import LayerKit
from engine.layers.rounded import RoundedLinear
from engine.model_spec import ModelSpec, RopeSpec
from engine.models.blocks import LlamaBlock
from engine.models.decoder import Decoder

WEIGHT_SPREAD = 0.02
MISTRAL_WINDOW = 4096


def mistral_7b() -> ModelSpec:
    """The exact shape of Mistral-7B-v0.1. Source: Jiang et al. 2023 (arXiv 2310.06825), table 1."""
    return ModelSpec(
        family="mistral",
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_size=128,
        model_size=4096,
        ffn_size=14_336,
        vocab_size=32_000,
        max_context=32_768,
        norm_eps=1e-5,
        rope=RopeSpec(theta=10_000.0),
        layer_windows=(MISTRAL_WINDOW,) * 32,
        eos_ids=(2,),
    )


def tiny() -> ModelSpec:
    """A shape for which every part of the measurement takes a second on a CPU; its window bites as well."""
    return ModelSpec(
        family="mistral",
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_size=16,
        model_size=64,
        ffn_size=96,
        vocab_size=256,
        max_context=512,
        norm_eps=1e-5,
        rope=RopeSpec(theta=10_000.0),
        layer_windows=(32,) * 2,
        eos_ids=(2,),
    )


def random_decoder(spec: ModelSpec, kit: LayerKit, seed: int = 0) -> Decoder:
    """A decoder of `spec` with every parameter drawn on the device itself."""
    decoder = Decoder(spec, kit, LlamaBlock)
    fill(decoder, seed)
    return decoder


def fill(decoder: torch.nn.Module, seed: int) -> None:
    """Draw every floating parameter: norms are 1, matrices normal."""
    for number, (name, weight) in enumerate(decoder.named_parameters()):
        generator = torch.Generator(weight.device).manual_seed(seed + number)
        if "norm" in name:
            weight.data.fill_(1.0)
        else:
            weight.data.normal_(0.0, WEIGHT_SPREAD, generator=generator)
    for number, module in enumerate(decoder.modules()):
        if isinstance(module, RoundedLinear):
            device = module.codes.device
            generator = torch.Generator(device).manual_seed(seed + 10_000 + number)
            values = torch.empty(module.codes.shape, device=device, dtype=torch.bfloat16)
            module.take(0, values.normal_(0.0, WEIGHT_SPREAD, generator=generator))
