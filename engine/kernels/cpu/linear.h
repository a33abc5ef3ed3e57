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

template <int SCALES>
RS_INLINE Floats scales_at(const uint8_t* scales, int which) {
  if constexpr (SCALES == RS_AFFINE_F32) return load<Floats>(scales + 64 * which);
  return from_float16(scales + 32 * which);
}

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
