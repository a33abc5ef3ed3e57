// What the kernels of linear maps share: preparing inputs, reading codes and scales, writing outputs.
#pragma once

#include "level.h"
#include "vector.h"

namespace RS_LEVEL {
namespace {

#if defined(__AMX_BF16__)
constexpr float INPUT_FACTOR = TILED_INPUT_FACTOR;
#else
constexpr float INPUT_FACTOR = 1.0f;
#endif

// Thirty-two inputs in the order of `input_at`.
RS_INLINE void store_inputs(uint16_t* to, const Floats& left, const Floats& right) {
  const Halves first = to_bfloat16(left * splat(INPUT_FACTOR)), second = to_bfloat16(right * splat(INPUT_FACTOR));
#if defined(__AVX512BW__)
  alignas(64) static constexpr auto ORDER = [] {
    struct { uint16_t inputs[GROUP]; } order{};
    for (int place = 0; place < GROUP; ++place) order.inputs[place] = static_cast<uint16_t>(input_at(place));
    return order;
  }();
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)first), (__m256i)second, 1);
  store(to, _mm512_permutexvar_epi16(load<__m512i>(&ORDER), both));
#else
  alignas(64) uint16_t halves[GROUP];
  store(halves, first);
  store(halves + LANES, second);
  for (int place = 0; place < GROUP; ++place) to[place] = halves[input_at(place)];
#endif
}

template <int BITS>
RS_INLINE Bytes codes_at(const uint8_t* packed, int step) {
  if constexpr (BITS == 8) return load<Bytes>(packed + 64 * step);
  const Words nibbles = load<Words>(packed + 64 * (step % 4));
  return (Bytes)((step < 4 ? nibbles : nibbles >> 4) & 0x0f0f0f0f);
}

// One group's scales of a tile's sixteen outputs.
template <int SCALES>
struct GroupScales {
  Floats d, m;

  GroupScales() = default;

  explicit RS_INLINE GroupScales(const uint8_t* scales) {
    if constexpr (SCALES == RS_AFFINE_F32) {
      d = load<Floats>(scales);
      m = load<Floats>(scales + 64);
    } else {
      d = from_float16(scales);
      if constexpr (SCALES == RS_AFFINE_F16) m = from_float16(scales + 32);
    }
  }

  // sum + the group's share, of a row whose group is at `place`, given the sum of all codes' products.
  RS_INLINE Floats add(const Floats& sum, const Ints& dots, const Rows& rows, size_t place, int centre) const {
    const Floats scale = d * splat(rows.scales[place]);
    if constexpr (SCALES == RS_CENTRED_F16)
      return multiply_add(to_floats(dots - splat(centre * rows.sums[place])), scale, sum);
    return multiply_add(m, splat(rows.offsets[place]), multiply_add(to_floats(dots), scale, sum));
  }
};

// The outputs of one of a panel's two tiles; zeros stay zeros beyond the segment's.
RS_INLINE Floats with_bias(const PanelTask& task, int side, const Floats& sums) {
  const int first = task.panel * PANEL_OUTPUTS + side * TILE_OUTPUTS;
  return task.bias ? sums + load_some(task.bias + first, task.segment->out_size - first) : sums;
}

// Adds the bias to one of a panel's two tiles, and writes the columns that the segment has.
RS_INLINE void write_outputs(const PanelTask& task, float* output, int side, const Floats& sums) {
  const int first = task.panel * PANEL_OUTPUTS + side * TILE_OUTPUTS;
  const int count = task.segment->out_size - first;
  if (count > 0) store_some(output + side * TILE_OUTPUTS, with_bias(task, side, sums), count);
}

}  // namespace
}  // namespace RS_LEVEL
