// Norm, gate, rotation and the preparation of rows for a linear.
#include "linear.h"

namespace RS_LEVEL {
namespace {

// Sixteen codes of twelve bits, as a high byte of -127 .. 127 and a low one of -8 .. 7.
RS_INLINE void store_codes(int8_t* codes, const Ints& values) {
  const Ints high = (values + (1 << (LOW_BITS - 1))) >> LOW_BITS;
  store(codes, __builtin_convertvector(high, Codes));
  store(codes + GROUP, __builtin_convertvector(values - (high << LOW_BITS), Codes));
}

RS_INLINE void quantise_group(const Rows& rows, size_t place, const Floats& left, const Floats& right) {
  const float top = largest(larger(larger(left, -left), larger(right, -right)));
  const float scale = top / MAX_CODE;
  const Floats inverse = splat(top > 0.0f ? MAX_CODE / top : 0.0f);
  const Ints left_codes = __builtin_convertvector(rounded(left * inverse), Ints);
  const Ints right_codes = __builtin_convertvector(rounded(right * inverse), Ints);
  int8_t* codes = rows.codes + place * CODE_BYTES;
  store_codes(codes, left_codes);
  store_codes(codes + LANES, right_codes);
  const int32_t sum = sum_of(left_codes + right_codes);
  rows.scales[place] = scale;
  rows.sums[place] = sum;
  rows.offsets[place] = scale * static_cast<float>(sum);
}

void halves_to_cache(const float* values, int size, uint8_t* cached) {
  for (int at = 0; at < size; at += LANES) {
    const Halves halves = to_bfloat16(load_some(values + at, size - at));
    const int count = size - at < LANES ? size - at : LANES;
    memcpy(cached + 2 * at, &halves, sizeof(uint16_t) * static_cast<size_t>(count));
  }
}

// One head: codes of -127 .. 127, and what one of them is worth.
void codes_to_cache(const float* values, int size, uint8_t* cached) {
  Floats tops = {};
  for (int at = 0; at < size; at += LANES) {
    const Floats some = load_some(values + at, size - at);
    tops = larger(tops, larger(some, -some));
  }
  const float top = largest(tops), scale = top / 127.0f;
  const Floats inverse = splat(top > 0.0f ? 127.0f / top : 0.0f);
  for (int at = 0; at < size; at += LANES) {
    const Ints whole = __builtin_convertvector(rounded(load_some(values + at, size - at) * inverse), Ints);
    const Codes codes = __builtin_convertvector(whole, Codes);
    memcpy(cached + at, &codes, static_cast<size_t>(size - at < LANES ? size - at : LANES));
  }
  memcpy(cached + size, &scale, sizeof scale);
}

}  // namespace

void prepare(const Rows& rows, int row, int first_group, const float* values, int count) {
  size_t place = rows.place(row, first_group);
  for (int at = 0; at < count; at += GROUP, place += static_cast<size_t>(rows.block_rows)) {
    const Floats left = load_some(values + at, count - at);
    const Floats right = load_some(values + at + LANES, count - at - LANES);
    if (rows.codes) quantise_group(rows, place, left, right);
    if (rows.dense) store_inputs(rows.dense + place * GROUP, left, right);
  }
}

// Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization (arXiv 1910.07467).
void norm(const float* hidden, const float* residual, const float* weight, float eps, int size, float* normed,
          float* total) {
  Floats squares = {};
  for (int at = 0; at < size; at += LANES) {
    Floats value = load_some(hidden + at, size - at);
    if (residual) value += load_some(residual + at, size - at);
    squares = multiply_add(value, value, squares);
    store_some(total + at, value, size - at);
  }
  const float mean = sum_of(squares) / static_cast<float>(size);
  const Floats factor = splat(1.0f / __builtin_sqrtf(mean + eps));
  for (int at = 0; at < size; at += LANES)
    store_some(normed + at, load_some(total + at, size - at) * factor * load_some(weight + at, size - at), size - at);
}

void silu_mul(const float* gate, const float* up, int size, float* output) {
  for (int at = 0; at < size; at += LANES)
    store_some(output + at, silu(load_some(gate + at, size - at)) * load_some(up + at, size - at), size - at);
}

// Source: Su et al. 2021, RoFormer (arXiv 2104.09864).
void rotate(float* head, const float* cos, const float* sin, int head_size) {
  const int half = head_size / 2;
  for (int at = 0; at < half; at += LANES) {
    const int count = half - at;
    const Floats first = load_some(head + at, count), second = load_some(head + half + at, count);
    const Floats c = load_some(cos + at, count), s = load_some(sin + at, count);
    store_some(head + at, multiply_add(first, c, -(second * s)), count);
    store_some(head + half + at, multiply_add(second, c, first * s), count);
  }
}

void to_cache(const float* values, int num_heads, int head_size, int32_t format, uint8_t* cached) {
  if (format == RS_CACHE_BF16) return halves_to_cache(values, num_heads * head_size, cached);
  for (int head = 0; head < num_heads; ++head, cached += cached_head_bytes(format, head_size))
    codes_to_cache(values + head * head_size, head_size, cached);
}

}  // namespace RS_LEVEL
