"""What must hold before a speed means anything: parity, the laws, and the same tokens alone and in company.

In float32, where rounding decides no tie that these prompts have, tokens must be equal. In bfloat16 the
log-probabilities must be near those of float32, as near as the reference's are.
"""

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.ops import kernels_for, ops_for
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.prompt import chunked_logits
from benchmarks.on_gpu.rig import Dials, Rig
from benchmarks.on_gpu.shapes import tiny
from engine.kernels.ops import REFERENCE
from engine.layers.kit import LayerKit
from engine.model_spec import ModelSpec
from engine.models.blocks import LlamaBlock
from engine.models.decoder import Decoder
from engine.models.llama import weight_map

LENGTHS = (1, 15, 16, 31, 32, 33, 47, 100)
NUM_OUTPUTS = 24
SPREAD = 0.25  # wide enough that attention is sharp, and a wrong key shows
NEAR = {torch.float32: 2e-4, torch.bfloat16: 0.25}


def small_place(place: Place, dtype: torch.dtype) -> Place:
    """The same device with the small model: the laws are about paths, not sizes."""
    return _SmallPlace(device=place.device, dtype=dtype, is_tiny=place.is_tiny)


class _SmallPlace(Place):
    @property
    def spec(self) -> ModelSpec:
        return tiny()


DIALS = Dials(max_running=16, max_step_tokens=64, max_chunk_tokens=24, cache_bytes=8 << 20)
FEW_BYTES = 24 * 16 * 512  # 24 blocks, where a sequence may hold five


def correctness(place: Place) -> Figures:
    """Every check by its name: what was found, and whether it holds."""
    torch.backends.cuda.matmul.allow_tf32 = False
    checks = {
        "kernels near the reference": near_the_reference(place),
        "parity with transformers": parity(place),
        "chunks change no token": same_tokens(place, replace(DIALS, max_chunk_tokens=5, max_step_tokens=20)),
        "recording changes no token": same_tokens(place, DIALS),
        "looking ahead changes no token": same_tokens(
            place, replace(DIALS, steps_in_flight=2, is_eager=True)
        ),
        "few blocks change no token": same_tokens(place, replace(DIALS, cache_bytes=FEW_BYTES), num_copies=4),
        "draws are those of the seed": same_tokens(place, DIALS, temperature=1.0, top_p=0.9),
        "deterministic: alone and in company": deterministic(place),
    }
    failed = [name for name, found in checks.items() if found.get("holds") is False]
    return {"checks": checks, "failed": failed}


def rig_of(place: Place, dials: Dials) -> Rig:
    """A rig of the small model with sharp weights."""
    rig = Rig.make(place, dials)
    sharpen(rig.decoder)
    return rig


def sharpen(decoder: Decoder) -> None:
    """Draw matrices wider than for speed, the same on every device."""
    for number, (name, weight) in enumerate(decoder.named_parameters()):
        values = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        center = 1.0 if "norm" in name else 0.0
        weight.data.copy_(center + SPREAD * values)


def tokens_of(rig: Rig, lengths: tuple[int, ...], **sampling: object) -> list[list[int]]:
    """What requests with prompts of these lengths get, all at once."""
    numbers = [rig.add(length, NUM_OUTPUTS, **sampling) for length in lengths]
    rig.run()
    return [rig.outputs[number] for number in numbers]


def same_tokens(place: Place, dials: Dials, *, num_copies: int = 1, **sampling: object) -> Figures:
    """Whether the requests get what they get one at a time, eagerly, in one chunk."""
    small = small_place(place, torch.float32)
    plain = Dials(
        max_running=16, max_step_tokens=256, max_chunk_tokens=256, steps_in_flight=1, is_eager=True,
        cache_bytes=8 << 20,
    )  # fmt: skip
    alone_rig = rig_of(small, plain)
    lengths = LENGTHS * num_copies
    alone = [tokens_of(alone_rig, (length,), **sampling)[0] for length in lengths]
    rig = rig_of(small, dials)
    found = tokens_of(rig, lengths, **sampling)
    differing = [length for length, a, b in zip(lengths, alone, found, strict=True) if a != b]
    return {
        "holds": not differing,
        "requests": len(lengths),
        "differing": differing,
        "num_preemptions": rig.scheduler.load.num_preemptions,
    }


def deterministic(place: Place) -> Figures:
    """Whether with --deterministic, in the dtype that is served, company changes no token; and without, for comparison."""
    dtype = place.dtype
    if place.device.type == "cpu":
        return {"skipped": "the reference's products depend on the number of rows; a GPU is needed"}
    figures: Figures = {}
    for is_deterministic in (True, False):
        dials = replace(DIALS, is_deterministic=is_deterministic)
        rig = rig_of(small_place(place, dtype), dials)
        alone = [tokens_of(rig, (length,))[0] for length in LENGTHS]
        fresh = rig_of(small_place(place, dtype), dials)
        together = tokens_of(fresh, LENGTHS)
        differing = [length for length, a, b in zip(LENGTHS, alone, together, strict=True) if a != b]
        figures["differing" if is_deterministic else "differing_without"] = differing
    return figures | {"holds": not figures["differing"]}


def near_the_reference(place: Place) -> Figures:
    """The largest difference of a prompt's log-probabilities from those of the reference in float32."""
    spec, prompt = tiny(), [3 + 37 * i % 250 for i in range(100)]
    expected = logprobs(spec, LayerKit.dense(REFERENCE, place.device, torch.float32), prompt, place)
    figures: Figures = {}
    holds = True
    for dtype, tolerance in NEAR.items():
        ops = ops_for(small_place(place, dtype))
        found = logprobs(spec, LayerKit.dense(ops, place.device, dtype), prompt, place)
        other = logprobs(spec, LayerKit.dense(REFERENCE, place.device, dtype), prompt, place)
        name = str(dtype).removeprefix("torch.")
        error, error_of_reference = ((one - expected).abs().max().item() for one in (found, other))
        figures[f"largest_error_{name}"] = error
        figures[f"largest_error_of_reference_{name}"] = error_of_reference
        holds &= error < max(tolerance, 2 * error_of_reference)
    return figures | {"holds": holds}


def logprobs(spec: ModelSpec, kit: LayerKit, prompt: list[int], place: Place) -> Tensor:
    """Of all tokens behind every position of a prompt, [T, V] float32, computed in chunks through the cache."""
    decoder = Decoder(spec, kit, LlamaBlock)
    sharpen(decoder)
    return torch.log_softmax(chunked_logits(decoder, prompt, place.device), dim=-1)


def parity(place: Place) -> Figures:
    """The largest difference from transformers' own model of the same weights, in float32, eager attention."""
    try:
        import transformers  # noqa: PLC0415  an oracle that need not be there
    except ImportError as error:
        return {"skipped": f"transformers is not here: {error}"}
    spec, prompt = tiny(), [3 + 37 * i % 250 for i in range(100)]
    kit = kernels_for(small_place(place, torch.float32)).kit
    ours = Decoder(spec, kit, LlamaBlock)
    sharpen(ours)
    config = transformers.MistralConfig(
        vocab_size=spec.vocab_size, hidden_size=spec.model_size, intermediate_size=spec.ffn_size,
        num_hidden_layers=spec.num_layers, num_attention_heads=spec.num_heads, head_dim=spec.head_size,
        num_key_value_heads=spec.num_kv_heads, max_position_embeddings=spec.max_context,
        rms_norm_eps=spec.norm_eps, sliding_window=spec.layer_windows[0], tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, target in weight_map(spec).items():
        rows = ours.get_parameter(target.parameter)[target.first_row : target.first_row + target.num_rows]
        theirs.get_parameter(name).data.copy_(rows)
    theirs = theirs.to(place.device)
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt], device=place.device), use_cache=False).logits[0].float()
    found = logprobs(spec, kit, prompt, place)
    error = (found - torch.log_softmax(expected, dim=-1)).abs().max().item()
    return {
        "largest_error": error,
        "holds": error < NEAR[torch.float32],
        "transformers": transformers.__version__,
    }
