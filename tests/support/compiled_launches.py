"""Compile for a Hopper GPU every kernel that the operations launch, without such a GPU. Run as a program.

What a launch is given is taken from the launch itself, so that names, numbers and order of arguments are
those of serving. Prints a line of JSON for each compiled kernel. Must not run in a process that interprets.
"""

import json
import sys
from dataclasses import dataclass

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from engine.batch import LayerCache
from engine.kernels.cached import to_cached
from engine.kernels.triton.invariant import invariant_linear
from engine.kernels.triton.kernels import TritonKernels
from engine.kernels.triton.rounding import round_rows
from engine.kernels.triton.sampling import TritonSampling
from tests.support.attention_oracle import paged_case

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float8_e4m3fn: "*fp8e4nv",
}


def compiled(kernel, *args, grid, warmup=False, **kwargs):
    """In the place of a launch: compile what it would have, and tell."""
    names = [parameter.name for parameter in kernel.params]
    given = dict(zip(names, args, strict=False)) | {
        name: kwargs.pop(name) for name in names if name in kwargs
    }
    assert set(given) == set(names), f"{kernel.__name__} lacks {set(names) - set(given)}"
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        is_one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or is_one:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = type_of(value)
        if is_divisible(value) and not (
            parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
        ):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    made = triton.compile(source, target=HOPPER, options=kwargs)
    text = made.asm["ptx"]
    tell = {
        "kernel": kernel.__name__,
        "shared_bytes": made.metadata.shared,
        "num_warps": made.metadata.num_warps,
        "has_matrix_groups": "wgmma.mma_async" in text,
        "has_matrix_units": "mma.sync" in text or "wgmma.mma_async" in text,
        "has_pipelined_loads": "cp.async" in text,
    }
    sys.stdout.write(json.dumps(tell) + "\n")


def type_of(value):
    """Triton's name for the type of an argument."""
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, bool):
        return "i1"
    return "fp32" if isinstance(value, float) else "i32"


def is_divisible(value):
    """Whether the compiler is told that 16 divides it; tensors begin at such places when serving."""
    return isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0)


@dataclass(frozen=True)
class Columns:
    """Parameters of one row's draw."""

    uniforms: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor


def launch_attention(heads, cached, dtype, window, *, is_uniform=False):
    """A decode and a chunk, through every operation that knows of the cache."""
    case = paged_case([(20, 21), (3, 9)], window, heads=heads, block_size=16)
    cache = LayerCache(
        group=0, keys=to_cached(case.cache.keys, cached), values=to_cached(case.cache.values, cached)
    )
    query = case.query.to(dtype)
    key = torch.zeros(len(query), *heads[1:], dtype=dtype)
    angles = torch.ones(len(query), heads[2] // 2, dtype=dtype)
    kernels = TritonKernels(is_uniform=is_uniform)
    step = kernels.prepare(case.batch, angles, angles)
    kernels.rotate_and_write(query, key, key, cache, step)
    kernels.attend(query, cache, step, window)


def launch_sampling(size):
    """A row of `size` logits, greedy and not."""
    sampling = TritonSampling()
    logits, real = torch.zeros(1, size), torch.zeros(1, dtype=torch.float64)
    whole = torch.zeros(1, dtype=torch.int64)
    sampling.draw(logits, None)
    sampling.draw(logits, Columns(real, real, whole, real, real))
    sampling.uniforms(whole, whole, whole)


def launch_rows(size, dtype):
    """A norm, with a residual and without, and a gate."""
    kernels = TritonKernels()
    hidden = torch.zeros(3, size, dtype=dtype)
    kernels.norm_residual(hidden, hidden, hidden[0], 1e-5)
    kernels.norm_residual(hidden, None, hidden[0], 1e-5)
    kernels.silu_mul(hidden)


def launch_products(in_size, out_size, dtype):
    """Few rows and many against the same weight, with a bias and without; and their rounding."""
    weight, bias = torch.zeros(out_size, in_size, dtype=dtype), torch.zeros(out_size, dtype=dtype)
    for num_rows in (1, 100):
        hidden = torch.zeros(num_rows, in_size, dtype=dtype)
        invariant_linear(hidden, weight, None)
        invariant_linear(hidden, weight, bias)
    round_rows(weight[:3])


def main() -> None:
    """Compile everything that serving a usual model would."""
    JITFunction.run = compiled
    for heads in ((32, 8, 128), (9, 3, 64), (14, 2, 80), (4, 1, 256)):
        launch_attention(heads, torch.bfloat16, torch.bfloat16, 4096)
    for cached in (torch.int8, torch.float8_e4m3fn):
        launch_attention((32, 8, 128), cached, torch.bfloat16, None)
    launch_attention((32, 8, 128), torch.float16, torch.float16, None, is_uniform=True)
    launch_attention((32, 8, 128), torch.float32, torch.float32, 4096)
    for size in (32_000, 151_936):
        launch_sampling(size)
    for in_size, out_size in ((4096, 6144), (14_336, 4096), (576, 1536)):
        launch_products(in_size, out_size, torch.bfloat16)
    launch_products(4096, 4096, torch.float32)
    for size in (576, 4096, 8192):
        launch_rows(size, torch.bfloat16)


if __name__ == "__main__":
    main()
