"""Rotary embedding of a token's queries and keys, and the write of its key and value into the cache."""

import triton
import triton.language as tl

TO_INTEGERS = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 this large has no bits behind the point
TO_512THS = tl.constexpr(24576.0)  # 1.5 * 2^14: and one this large none behind the ninth


@triton.jit
def nearest_integer(number):
    """`number`, at most 2^22 in magnitude, rounded to an integer, halves to the even one, still float32."""
    return (number + TO_INTEGERS) - TO_INTEGERS


@triton.jit
def nearest_e4m3(number):
    """`number`, at most 448 in magnitude, rounded to what float8_e4m3fn holds, still float32.

    That is three bits behind the leading one, or below 2^-6 multiples of 2^-9. Rounded here, the conversion
    that follows is exact whatever makes it: some cut off.
    """
    bits = number.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFFF + ((bits >> 20) & 1)) & ~0xFFFFF
    small = (number + TO_512THS) - TO_512THS
    return tl.where(tl.abs(number) < 0.015625, small, rounded.to(tl.float32, bitcast=True))


@triton.jit
def put_head_codes(
    cached, scales, places, halves_at, is_real, first, second, head_size: tl.constexpr, max_code: tl.constexpr
):
    """Write heads [n, D], in two halves, as codes, and behind each head what one of its codes is worth."""
    top = tl.maximum(tl.max(tl.abs(first), 1), tl.max(tl.abs(second), 1))  # [n]
    inverse = tl.where(top > 0, max_code / tl.where(top > 0, top, 1.0), 0.0)[:, None]
    kind = cached.dtype.element_ty
    if kind == tl.int8:
        first, second = nearest_integer(first * inverse), nearest_integer(second * inverse)
    else:
        first, second = nearest_e4m3(first * inverse), nearest_e4m3(second * inverse)
    tl.store(cached + halves_at, first.to(kind), mask=is_real)
    tl.store(cached + halves_at + head_size // 2, second.to(kind), mask=is_real)
    is_head = tl.max(is_real.to(tl.int32), 1) > 0
    tl.store(scales + (places + head_size) // 4, top / max_code, mask=is_head)


@triton.jit
def put_head(
    cached,
    scales,
    places,
    is_real,
    first,
    second,
    head_size: tl.constexpr,
    half: tl.constexpr,
    max_code: tl.constexpr,
):
    """Write heads [n, D], in two halves, to `places` [n], in the cache's type."""
    halves_at = places[:, None] + tl.arange(0, half)[None, :]
    if max_code > 0:
        put_head_codes(cached, scales, places, halves_at, is_real, first, second, head_size, max_code)
    else:
        kind = cached.dtype.element_ty
        tl.store(cached + halves_at, first.to(kind), mask=is_real)
        tl.store(cached + halves_at + head_size // 2, second.to(kind), mask=is_real)


@triton.jit
def read_halves(heads, at, is_real, head_size: tl.constexpr):
    """Two halves [n, D / 2] of heads, in float32."""
    first = tl.load(heads + at, mask=is_real, other=0.0).to(tl.float32)
    second = tl.load(heads + at + head_size // 2, mask=is_real, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def turn(first, second, cosine, sine):
    """Each pair of dimensions turned by its angle."""
    return first * cosine - second * sine, second * cosine + first * sine


@triton.jit(do_not_specialize_on_alignment=["slots"])
def rotate_and_write_rows(
    query,
    key,
    value,
    cos,
    sin,
    slots,
    rotated,  # [T, H, D]
    keys,
    values,
    key_scales,
    value_scales,
    query_stride,
    key_stride,
    value_stride,
    slot_stride,
    head_stride,
    num_heads,
    num_kv_heads,
    head_size: tl.constexpr,
    half: tl.constexpr,  # D / 2 at least, a power of two
    heads: tl.constexpr,  # query heads of a program
    kv_heads: tl.constexpr,  # K at least, a power of two
    max_code: tl.constexpr,  # 0: the cache holds numbers
):
    """One token and `heads` of its query heads, or all its keys and values: a grid [T, 1 + parts of H].

    A row without a slot, -1, only fills a batch up: its query is turned, and nothing is written.
    """
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dims = tl.arange(0, half)
    is_dim = dims < head_size // 2
    cosine = tl.load(cos + row * (head_size // 2) + dims, mask=is_dim, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + row * (head_size // 2) + dims, mask=is_dim, other=0.0).to(tl.float32)[None, :]
    if part > 0:
        own_head = (part - 1) * heads + tl.arange(0, heads)
        is_real = (own_head < num_heads)[:, None] & is_dim[None, :]
        at = own_head[:, None] * head_size + dims[None, :]
        first, second = read_halves(query + row * query_stride, at, is_real, head_size)
        first, second = turn(first, second, cosine, sine)
        place = rotated + row * num_heads * head_size + at
        kind = rotated.dtype.element_ty
        tl.store(place, first.to(kind), mask=is_real)
        tl.store(place + head_size // 2, second.to(kind), mask=is_real)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            own_head = tl.arange(0, kv_heads)
            is_real = (own_head < num_kv_heads)[:, None] & is_dim[None, :]
            at = own_head[:, None] * head_size + dims[None, :]
            places = slot * slot_stride + own_head * head_stride  # [kv_heads]
            first, second = read_halves(key + row * key_stride, at, is_real, head_size)
            first, second = turn(first, second, cosine, sine)
            put_head(keys, key_scales, places, is_real, first, second, head_size, half, max_code)
            first, second = read_halves(value + row * value_stride, at, is_real, head_size)
            put_head(values, value_scales, places, is_real, first, second, head_size, half, max_code)
