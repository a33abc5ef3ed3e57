"""Single operations at the shapes of a decode step and of a prompt: what each reaches of its limit."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.limits import Costs
from benchmarks.on_gpu.ops import kernels_for, ops_for
from benchmarks.on_gpu.place import Place
from engine.batch import Batch, GroupBatch, LayerCache
from engine.execution.plain_draw import DrawColumns, DrawKind

BLOCK_SIZE = 16


def kernels(place: Place) -> Figures:
    """Microseconds, and bytes or operations a second, of every operation of a layer and of the draws."""
    figures: Figures = {}
    for rows in (1, place.size(32, 4), place.size(256, 8)):
        for length in (place.size(1000, 48), place.size(4096, 96)):
            figures |= _attention(place, rows, length)
        figures |= _products(place, rows) | _rows(place, rows) | _draws(place, rows)
    return figures | _prompt(place, place.size(2048, 64))


def standing_batch(place: Place, rows: int, length: int) -> tuple[Batch, LayerCache]:
    """Sequences of `length` tokens that each compute their newest one, over blocks in no order."""
    spec, window = place.spec, place.spec.layer_windows[0]
    first = 0 if window is None else max(0, length - window) // BLOCK_SIZE
    width = -(-length // BLOCK_SIZE) - first
    order = torch.randperm(rows * width, generator=torch.Generator().manual_seed(0)).to(place.device)
    tables = order.view(rows, width)  # [S, M]
    positions = torch.full((rows,), length - 1, device=place.device)
    bounds = torch.arange(rows + 1, device=place.device)
    group = GroupBatch(
        window=window,
        block_size=BLOCK_SIZE,
        slots=tables[:, -1] * BLOCK_SIZE + (length - 1) % BLOCK_SIZE,
        tables=tables,
        bases=(),
        base_positions=torch.full((rows,), first * BLOCK_SIZE, device=place.device),
    )
    batch = Batch(
        token_ids=positions,
        positions=positions,
        wanted_rows=bounds[:rows],
        row_starts=tuple(range(rows + 1)),
        row_bounds=bounds,
        starts=(),
        groups=(group,),
    )
    shape = (rows * width * BLOCK_SIZE, spec.num_kv_heads, spec.head_size)
    keys, values = (draw(place, *shape) for _ in range(2))
    return batch, LayerCache(group=0, keys=keys, values=values)


def draw(place: Place, *shape: int) -> Tensor:
    """Normal numbers on the device."""
    return torch.randn(shape, device=place.device, dtype=place.dtype)


def angles(place: Place, rows: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of random angles, for so many rows."""
    angles = torch.rand(rows, place.spec.head_size // 2, device=place.device)
    return angles.cos().to(place.dtype), angles.sin().to(place.dtype)


def _moved(place: Place, name: str, num_bytes: float, act: Callable[[], object]) -> Figures:
    seconds = place.seconds(act)
    return {f"{name}_us": 1e6 * seconds, f"{name}_gb_per_s": num_bytes / seconds / 1e9}


def _attention(place: Place, rows: int, length: int) -> Figures:
    spec, ops = place.spec, ops_for(place)
    batch, cache = standing_batch(place, rows, length)
    prepared = ops.prepare(batch, *angles(place, rows))
    query = draw(place, rows, spec.num_heads, spec.head_size)
    visible = Costs(spec=spec).visible(length)
    num_bytes = rows * visible * 2 * spec.num_kv_heads * spec.head_size * place.dtype.itemsize
    name = f"attend_{rows}x{length}"
    return _moved(place, name, num_bytes, lambda: ops.attend(query, cache, prepared, spec.layer_windows[0]))


def _products(place: Place, rows: int) -> Figures:
    spec, kit = place.spec, kernels_for(place).kit
    sizes = {
        "qkv": (spec.model_size, (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_size),
        "output": (spec.num_heads * spec.head_size, spec.model_size),
        "gate_up": (spec.model_size, 2 * spec.ffn_size),
        "down": (spec.ffn_size, spec.model_size),
        "head": (spec.model_size, spec.vocab_size),
    }
    figures: Figures = {}
    for name, (in_size, out_size) in sizes.items():
        # Several of them in turn, so that none lies in the cache between memory and processors.
        weights = [draw(place, out_size, in_size) for _ in range(place.size(6, 2))]
        hidden = draw(place, rows, in_size)

        def act(hidden: Tensor = hidden, weights: list[Tensor] = weights) -> None:
            for weight in weights:
                kit.ops.linear(hidden, weight, None)

        num_bytes = sum(weight.nbytes for weight in weights)
        figures |= _moved(place, f"{name}_{rows}", num_bytes, act)
    return figures


def _rows(place: Place, rows: int) -> Figures:
    spec, ops = place.spec, ops_for(place)
    hidden, residual = draw(place, rows, spec.model_size), draw(place, rows, spec.model_size)
    weight, gate_up = draw(place, spec.model_size), draw(place, rows, 2 * spec.ffn_size)
    batch, cache = standing_batch(place, rows, 2 * BLOCK_SIZE)
    prepared = ops.prepare(batch, *angles(place, rows))
    heads = draw(place, rows, spec.num_heads + 2 * spec.num_kv_heads, spec.head_size)
    parts = heads.split([spec.num_heads, spec.num_kv_heads, spec.num_kv_heads], dim=1)
    return (
        _moved(
            place,
            f"norm_{rows}",
            4 * hidden.nbytes,
            lambda: ops.norm_residual(hidden, residual, weight, 1e-5),
        )
        | _moved(place, f"silu_mul_{rows}", 1.5 * gate_up.nbytes, lambda: ops.silu_mul(gate_up))
        | _moved(
            place, f"rotate_{rows}", 2 * heads.nbytes, lambda: ops.rotate_and_write(*parts, cache, prepared)
        )
    )


def _draws(place: Place, rows: int) -> Figures:
    logits = torch.randn(rows, place.spec.vocab_size, device=place.device)

    def real(value: float) -> Tensor:
        return torch.full((rows,), value, dtype=torch.float64, device=place.device)

    top_k = torch.full((rows,), 40, device=place.device)
    columns = DrawColumns(
        uniforms=real(0.5), temperature=real(0.8), top_k=top_k, top_p=real(0.9), min_p=real(0.01)
    )
    figures: Figures = {}
    draw_with = kernels_for(place).draw
    for kind in (DrawKind.GREEDY, DrawKind.RANDOM, DrawKind.TRUNCATED):
        seconds = place.seconds(lambda kind=kind: draw_with(kind, logits, columns))
        figures[f"draw_{kind.name.lower()}_{rows}_us"] = 1e6 * seconds
    return figures


def prompt_batch(place: Place, length: int) -> tuple[Batch, LayerCache]:
    """A whole prompt in one chunk."""
    spec, window = place.spec, place.spec.layer_windows[0]
    width = -(-length // BLOCK_SIZE)
    slots = torch.arange(length, device=place.device)
    group = GroupBatch(
        window=window, block_size=BLOCK_SIZE, slots=slots, tables=torch.arange(width, device=place.device).view(1, -1),
        bases=(0,), base_positions=torch.zeros(1, dtype=torch.int64, device=place.device),
    )  # fmt: skip
    batch = Batch(
        token_ids=slots, positions=slots, wanted_rows=slots[-1:], row_starts=(0, length),
        row_bounds=torch.tensor([0, length], device=place.device), starts=(0,), groups=(group,),
    )  # fmt: skip
    shape = (width * BLOCK_SIZE, spec.num_kv_heads, spec.head_size)
    return batch, LayerCache(group=0, keys=draw(place, *shape), values=draw(place, *shape))


def _prompt(place: Place, length: int) -> Figures:
    """Attention of a whole prompt in one chunk."""
    spec, ops = place.spec, ops_for(place)
    batch, cache = prompt_batch(place, length)
    prepared = ops.prepare(batch, *angles(place, length))
    query = draw(place, length, spec.num_heads, spec.head_size)
    seconds = place.seconds(lambda: ops.attend(query, cache, prepared, spec.layer_windows[0]))
    operations = 4 * length * spec.num_heads * spec.head_size * Costs(spec=spec).mean_visible(length)
    return {
        f"attend_prompt_{length}_us": 1e6 * seconds,
        f"attend_prompt_{length}_tflops": operations / seconds / 1e12,
    }
