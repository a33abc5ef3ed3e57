"""Which block sizes attention is fastest with on this GPU: times every candidate, and prints the best.

    python -m benchmarks.block_sizes [--best N] [--tiny]

What wins goes into `engine/kernels/triton/block_sizes.py` by hand: nothing is searched for while serving.
`--tiny` tries a few on the host, in Triton's interpreter (TRITON_INTERPRET=1), to try the script itself.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from triton.runtime.errors import OutOfResources

from benchmarks.on_gpu.kernels import angles, draw, prompt_batch, standing_batch
from benchmarks.on_gpu.place import Place
from engine.batch import Batch, LayerCache
from engine.kernels.triton.block_sizes import (
    BlockSizes,
    decode_candidates,
    decode_sizes,
    head_width,
    prefill_candidates,
    prefill_sizes,
)
from engine.kernels.triton.kernels import TritonKernels

NUM_TINY = 2


def main(words: Sequence[str] | None = None) -> None:
    """Print a table for decode steps of 1, 32 and 256 rows, and one for prompts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--best", type=int, default=5, help="how many of each to print")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the host")
    flags = parser.parse_args(words)
    place = Place.choose(is_tiny=flags.tiny)
    group = place.spec.num_heads // place.spec.num_kv_heads
    shape = (group, head_width(place.spec.head_size), place.dtype)
    for rows, length in ((1, 1000), (1, 4096), (32, 1000), (256, 1000)):
        batch = standing_batch(place, place.size(rows, min(rows, 2)), place.size(length, 24))
        found = timed(place, batch, decode_candidates(*shape), lambda sizes: TritonKernels(decode=sizes))
        print_best(f"decode {rows} x {length}", found, decode_sizes(*shape), flags.best)
    for length in (512, 2048, 8192):
        batch = prompt_batch(place, place.size(length, 24))
        found = timed(place, batch, prefill_candidates(*shape), lambda sizes: TritonKernels(prefill=sizes))
        print_best(f"prompt {length}", found, prefill_sizes(*shape), flags.best)


def timed(
    place: Place,
    step: tuple[Batch, LayerCache],
    candidates: Sequence[BlockSizes],
    kernels_with: Callable[[BlockSizes], TritonKernels],
) -> list[tuple[float, BlockSizes]]:
    """(seconds, sizes) of each candidate that compiles and fits, the fastest first."""
    batch, cache = step
    num_rows, window = len(batch.positions), place.spec.layer_windows[0]
    query = draw(place, num_rows, place.spec.num_heads, place.spec.head_size)
    found = []
    for sizes in candidates[: NUM_TINY if place.is_tiny else None]:
        kernels = kernels_with(sizes)
        step_of = kernels.prepare(batch, *angles(place, num_rows))
        try:
            kernels.attend(query, cache, step_of, window)
        except OutOfResources:
            continue
        found.append((place.seconds(partial(kernels.attend, query, cache, step_of, window)), sizes))
    return sorted(found, key=lambda pair: pair[0])


def print_best(name: str, found: Sequence[tuple[float, BlockSizes]], own: BlockSizes, number: int) -> None:
    """The `number` fastest, and what is served with."""
    print(f"\n{name}\n| microseconds | rows | keys | warps | stages | |\n|---|---|---|---|---|---|")
    for rank, (seconds, sizes) in enumerate(found):
        if rank < number or sizes == own:
            mark = "served with" if sizes == own else ""
            print(
                f"| {1e6 * seconds:.1f} | {sizes.rows} | {sizes.keys} | {sizes.num_warps} | {sizes.num_stages} "
                f"| {mark} |"
            )


if __name__ == "__main__":
    main()
