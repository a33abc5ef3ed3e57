// The packed form of weights: column tiles of 16 outputs, groups of 32 inputs.
//
// A tile holds, group after group, everything that its 16 outputs need of 32 inputs, so that one
// row of activations reads the weights once, from front to back:
//
//   4 bits   4 x 64 bytes: step s has, for output n, inputs 4 s + b in the low nibbles of bytes
//            4 n + b, and inputs 4 s + 16 + b in the high ones; then the scales
//   8 bits   8 x 64 bytes: step s has inputs 4 s + b of output n in bytes 4 n + b; then the scales
//   bf16     16 x 64 bytes: step s has the inputs of places 2 s and 2 s + 1 of output n in word n
//
// In front of a tile's groups, but not of bf16's, stands `head_bytes` that only bfloat16 tiles need: for each output
// the exponent, as a float32, of the power of two that takes weights, and scales for their codes, into float16.
//
// Scales are d for each output, then m where there is one, as float16 or float32. Tiles come in
// pairs; outputs and inputs beyond the tensor's are zeros.
//
// Bfloat16 weights and activations have another order within a group, `input_at`: the one in which the
// nibbles of 16-bit words come when they are shifted out one after another.
#pragma once

#include <cstddef>

#include "kernels.h"

constexpr int GROUP = 32;
constexpr int TILE_OUTPUTS = 16;
constexpr int PANEL_OUTPUTS = 2 * TILE_OUTPUTS;

constexpr int input_at(int place) {
  const int pair = place / 2, nibble = pair % 4;
  return 4 * (pair / 4) + 2 * (place % 2) + nibble / 2 + 16 * (nibble % 2);
}

constexpr int num_groups(int in_size) { return (in_size + GROUP - 1) / GROUP; }
constexpr int num_panels(int out_size) { return (out_size + PANEL_OUTPUTS - 1) / PANEL_OUTPUTS; }

constexpr size_t code_bytes(int code_bits) { return static_cast<size_t>(code_bits) * TILE_OUTPUTS * GROUP / 8; }

// A code of 1, where it stands in a 16-bit word when bfloat16 tiles are made, is 2^-code_exponent as a float16.
constexpr int code_exponent(int code_bits) { return code_bits == 4 ? 18 : 22; }

constexpr size_t scale_bytes(int scales) {
  switch (scales) {
    case RS_CENTRED_F16: return 2 * TILE_OUTPUTS;
    case RS_AFFINE_F16: return 4 * TILE_OUTPUTS;
    case RS_AFFINE_F32: return 8 * TILE_OUTPUTS;
    default: return 0;
  }
}

constexpr size_t head_bytes(int scales) { return scales == RS_DENSE_BF16 ? 0 : sizeof(float) * TILE_OUTPUTS; }

inline size_t group_bytes(const rs_segment& segment) {
  return code_bytes(segment.code_bits) + scale_bytes(segment.scales);
}

inline size_t tile_bytes(const rs_segment& segment, int in_size) {
  return head_bytes(segment.scales) + group_bytes(segment) * static_cast<size_t>(num_groups(in_size));
}
