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

  // sum + the group's share, of a row whose group is at `place`, given the sum of all codes' products.
  RS_INLINE Floats add(const Floats& sum, const Ints& dots, const Rows& rows, size_t place, int centre) const {
    const Floats scale = d * splat(rows.scales[place]);
    if constexpr (SCALES == RS_CENTRED_F16)
      return multiply_add(to_floats(dots - splat(centre * rows.sums[place])), scale, sum);
    return multiply_add(m, splat(rows.offsets[place]), multiply_add(to_floats(dots), scale, sum));
  }
};

// Adds the bias to one of a panel's two tiles, and writes the columns that the segment has.
RS_INLINE void write_outputs(const PanelTask& task, float* output, int side, const Floats& sums) {
  const int first = task.panel * PANEL_OUTPUTS + side * TILE_OUTPUTS;
  const int count = task.segment->out_size - first;
  output += side * TILE_OUTPUTS;
  if (count >= LANES) return store(output, task.bias ? sums + load<Floats>(task.bias + first) : sums);
  if (count <= 0) return;
  const size_t num_bytes = sizeof(float) * static_cast<size_t>(count);
  float values[LANES], biases[LANES] = {};
  if (task.bias) memcpy(biases, task.bias + first, num_bytes);
  store(values, sums + load<Floats>(biases));
  memcpy(output, values, num_bytes);
}

}  // namespace
}  // namespace RS_LEVEL
