// What the kernels of linear maps share: reading codes and scales, writing outputs.
#pragma once

#include "level.h"
#include "vector.h"

namespace RS_LEVEL {
namespace {

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

  // sum + the group's share, of a row whose group is at `place`, given the products of all codes.
  RS_INLINE Floats add(const Floats& sum, const Ints& dots, const Rows& rows, size_t place, int centre) const {
    const Floats scale = d * splat(rows.scales[place]);
    if constexpr (SCALES == RS_CENTRED_F16)
      return multiply_add(to_floats(dots - splat(centre * rows.sums[place])), scale, sum);
    return multiply_add(m, splat(rows.offsets[place]), multiply_add(to_floats(dots), scale, sum));
  }
};

// Adds the bias, and writes the panel's columns that the segment has.
RS_INLINE void write_outputs(const PanelTask& task, float* output, const Floats& left, const Floats& right) {
  const int first = task.panel * PANEL_OUTPUTS;
  const int count = task.segment->out_size - first;
  float values[PANEL_OUTPUTS], biases[PANEL_OUTPUTS] = {};
  const size_t num_bytes = sizeof(float) * static_cast<size_t>(count < PANEL_OUTPUTS ? count : PANEL_OUTPUTS);
  if (task.bias) memcpy(biases, task.bias + first, num_bytes);
  if (count >= PANEL_OUTPUTS && !task.bias) {
    store(output, left);
    store(output + LANES, right);
    return;
  }
  store(values, left + load<Floats>(biases));
  store(values + LANES, right + load<Floats>(biases + LANES));
  memcpy(output, values, num_bytes);
}

}  // namespace
}  // namespace RS_LEVEL
