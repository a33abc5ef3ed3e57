"""`NativeKernels`: the operations of `Ops` by the shared library, one call each.

The engine computes whole steps by one call (`run_step.py`); this is how its parts are proven and timed.

Hidden states and norms are float32, cached keys and values bfloat16 or 8-bit, weights as `packed.py`
holds them. Every row's result is the same to the last bit whatever is computed beside it.
One thread may call at a time; calls release the interpreter's lock.
"""

import ctypes
from collections.abc import Sequence
from ctypes import byref

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.library import BatchPlaces, CachePlaces, GroupPlaces, HeadSizes
from engine.kernels.cpu.packed import PackedWeights

CACHE_FORMATS = {torch.bfloat16: 0, torch.int8: 1}  # `rs_cache_format`


class NativeStep:
    """What the kernels need of a batch: `places`, and the tensors that it points into."""

    def __init__(self, batch: Batch, cos: Tensor, sin: Tensor) -> None:
        assert cos.dtype == sin.dtype == torch.float32
        bounds = [*batch.row_starts, *batch.starts]
        for group in batch.groups:
            bounds += group.bases
        numbers = (ctypes.c_int64 * len(bounds))(*bounds)
        address, word = ctypes.addressof(numbers), ctypes.sizeof(ctypes.c_int64)
        num_chunks = batch.num_chunks
        bases = address + (2 * num_chunks + 1) * word
        groups = (GroupPlaces * len(batch.groups))(
            *(
                GroupPlaces(
                    slots=group.slots.data_ptr(),
                    tables=group.tables.data_ptr(),
                    bases=bases + index * num_chunks * word,
                    table_width=group.tables.shape[1],
                    block_size=group.block_size,
                )
                for index, group in enumerate(batch.groups)
            )
        )
        self._kept = (batch, cos, sin, numbers, groups)
        self.places = BatchPlaces(
            row_starts=address,
            starts=address + (num_chunks + 1) * word,
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            groups=groups,
            num_tokens=batch.row_starts[-1],
            num_chunks=num_chunks,
        )


class NativeKernels(KernelContext):
    """The operations by themselves, on tensors: what each computes is held against the reference here."""

    def prepare(self, batch: Batch, cos: Tensor, sin: Tensor) -> NativeStep:
        """The batch in the kernels' own words."""
        return NativeStep(batch, cos, sin)

    def norm_residual(
        self, hidden: Tensor, residual: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(norm(hidden + residual) · weight, hidden + residual) of float32 rows."""
        hidden = hidden.contiguous()
        kept = None if residual is None else residual.contiguous()
        normed, total = torch.empty_like(hidden), torch.empty_like(hidden)
        size = hidden.shape[-1]
        self.library.rs_norm_residual(
            self.context,
            hidden.data_ptr(),
            None if kept is None else kept.data_ptr(),
            weight.data_ptr(),
            eps,
            hidden.numel() // size,
            size,
            normed.data_ptr(),
            total.data_ptr(),
        )
        return normed, total

    def linear(self, hidden: Tensor, packed: PackedWeights) -> Tensor:
        """[T, in] float32 gives [T, out]."""
        return torch.from_numpy(self.project(hidden.contiguous().numpy(), packed))

    def look_up(self, token_ids: Tensor, packed: PackedWeights) -> Tensor:
        """[T] int64 gives rows of a packed table, [T, in]."""
        rows = torch.empty(len(token_ids), packed.in_size)
        self.library.rs_embed(
            self.context, byref(packed.weights), token_ids.data_ptr(), len(token_ids), rows.data_ptr()
        )
        return rows

    def rotate_and_write(
        self, query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, prepared: object
    ) -> Tensor:
        """The rotated query [T, H, D]; keys and values are in their slots, in the cache's type, after it."""
        assert isinstance(prepared, NativeStep)
        heads = torch.cat((query, key, value), dim=1)  # [T, H + 2 K, D]
        sizes = _head_sizes(query, cache, None)
        self.library.rs_rotate_and_write(
            self.context, byref(sizes), byref(prepared.places), byref(cache_places(cache)), heads.data_ptr()
        )
        return heads[:, : query.shape[1]]

    def attend(self, query: Tensor, cache: LayerCache, prepared: object, window: int | None) -> Tensor:
        """[T, H, D] gives [T, H · D]; the heads of a row must lie together."""
        assert isinstance(prepared, NativeStep)
        assert query.stride(1) == query.shape[2]
        output = torch.empty(len(query), query.shape[1] * query.shape[2])
        self.library.rs_attend(
            self.context,
            byref(_head_sizes(query, cache, window)),
            byref(prepared.places),
            byref(cache_places(cache)),
            query.data_ptr(),
            query.stride(0),
            output.data_ptr(),
        )
        return output

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) · up of [T, 2 F], gate before up."""
        gate_up = gate_up.contiguous()
        ffn_size = gate_up.shape[-1] // 2
        output = torch.empty(len(gate_up), ffn_size)
        self.library.rs_silu_mul(self.context, gate_up.data_ptr(), len(gate_up), ffn_size, output.data_ptr())
        return output


def cache_places(cache: LayerCache) -> CachePlaces:
    """Where one layer's keys and values are; valid as long as its tensors."""
    assert cache.keys.dtype == cache.values.dtype
    return CachePlaces(
        keys=cache.keys.data_ptr(),
        values=cache.values.data_ptr(),
        group=cache.group,
        format=CACHE_FORMATS[cache.keys.dtype],
    )


def all_cache_places(caches: Sequence[LayerCache]) -> "ctypes.Array[CachePlaces]":
    """The same of every layer."""
    return (CachePlaces * len(caches))(*(cache_places(cache) for cache in caches))


def _head_sizes(query: Tensor, cache: LayerCache, window: int | None) -> HeadSizes:
    return HeadSizes(
        num_heads=query.shape[1],
        num_kv_heads=cache.keys.shape[1],
        head_size=query.shape[2],
        window=window or 0,
    )
