// From a checkpoint's rows to packed tiles, and back for look-ups. Runs once, at start-up.
//
// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K and Q5_K are held exactly. Q6_K, whose scales are for 16
// inputs, becomes 8-bit codes of 32: an error of at most 1/510 of the group's range of values.
// Block formats: the GGUF specification and ggml's `ggml-common.h`.
#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

// GGML's numbers of tensor types.
enum Source : int32_t { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };

// Thirty-two weights: d * u + m, or d * (u - centre) where the segment has a centre.
struct Group {
  uint8_t codes[GROUP];
  float d;
  float m;
  uint16_t d_bits;  // as the file has them, where it has float16
  uint16_t m_bits;
};

uint16_t half_at(const uint8_t* bytes) {
  uint16_t bits;
  memcpy(&bits, bytes, sizeof bits);
  return bits;
}

// The exponent's bias is mended by one product, which is right for subnormal numbers too. What is infinite or no
// number is no number.
float from_half(uint16_t bits) {
  if ((bits & 0x7c00) == 0x7c00) return NAN;
  const uint32_t wide = static_cast<uint32_t>(bits & 0x7fff) << 13;
  float magnitude;
  memcpy(&magnitude, &wide, sizeof magnitude);
  magnitude *= 0x1p112f;
  return bits & 0x8000 ? -magnitude : magnitude;
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void split_nibbles(const uint8_t* nibbles, uint8_t* codes) {
  for (int i = 0; i < GROUP / 2; ++i) {
    codes[i] = nibbles[i] & 15;
    codes[i + GROUP / 2] = nibbles[i] >> 4;
  }
}

void add_fifth_bits(const uint8_t* bytes, uint8_t* codes) {
  uint32_t bits;
  memcpy(&bits, bytes, sizeof bits);
  for (int i = 0; i < GROUP; ++i) codes[i] |= static_cast<uint8_t>((bits >> i & 1) << 4);
}

void read_half_scales(const uint8_t* block, bool has_m, Group& group) {
  group.d_bits = half_at(block);
  group.m_bits = has_m ? half_at(block + 2) : 0;
  group.d = from_half(group.d_bits);
  group.m = from_half(group.m_bits);
}

void read_plain_block(int32_t source, const uint8_t* row, int index, Group& group) {
  const bool has_m = source == Q4_1 || source == Q5_1;
  const bool has_fifth_bit = source == Q5_0 || source == Q5_1;
  const int header = has_m ? 4 : 2;
  const uint8_t* block = row + static_cast<size_t>(index) * static_cast<size_t>(header + (has_fifth_bit ? 4 : 0) + 16);
  read_half_scales(block, has_m, group);
  split_nibbles(block + header + (has_fifth_bit ? 4 : 0), group.codes);
  if (has_fifth_bit) add_fifth_bits(block + header, group.codes);
}

void read_q8_0(const uint8_t* row, int index, Group& group) {
  const uint8_t* block = row + static_cast<size_t>(index) * 34;
  read_half_scales(block, false, group);
  for (int i = 0; i < GROUP; ++i) group.codes[i] = static_cast<uint8_t>(block[2 + i] + 128);
}

// The six-bit scale and minimum of group `index` of the eight in a K block, from its twelve bytes.
void read_k_scales(const uint8_t* packed, int index, int& scale, int& minimum) {
  if (index < 4) {
    scale = packed[index] & 63;
    minimum = packed[index + 4] & 63;
    return;
  }
  scale = (packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4;
  minimum = packed[index + 4] >> 4 | (packed[index] >> 6) << 4;
}

// Q4_K and Q5_K: eleven bits times six bits fit float32's 24, so d and m are exact.
void read_k_block(int32_t source, const uint8_t* row, int index, Group& group) {
  const bool has_fifth_bit = source == Q5_K;
  const uint8_t* block = row + static_cast<size_t>(index / 8) * (has_fifth_bit ? 176 : 144);
  const int sub = index % 8;
  int scale, minimum;
  read_k_scales(block + 4, sub, scale, minimum);
  group.d = from_half(half_at(block)) * static_cast<float>(scale);
  group.m = -from_half(half_at(block + 2)) * static_cast<float>(minimum);
  const uint8_t* fifth = block + 16;
  const uint8_t* nibbles = fifth + (has_fifth_bit ? 32 : 0) + sub / 2 * 32;
  for (int i = 0; i < GROUP; ++i) {
    group.codes[i] = sub % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4;
    if (has_fifth_bit) group.codes[i] |= static_cast<uint8_t>((fifth[i] >> sub & 1) << 4);
  }
}

// Weights of group `index` of a Q6_K row: 256 a block, in two halves of four quarters.
void q6_k_values(const uint8_t* row, int index, float* values) {
  const uint8_t* block = row + static_cast<size_t>(index / 8) * 210;
  const int half = index % 8 / 4, quarter = index % 4;
  const uint8_t* low = block + half * 64 + quarter % 2 * 32;
  const uint8_t* high = block + 128 + half * 32;
  const int8_t* scales = reinterpret_cast<const int8_t*>(block + 192) + half * 8 + quarter * 2;
  const float d = from_half(half_at(block + 208));
  for (int i = 0; i < GROUP; ++i) {
    const int four = quarter < 2 ? low[i] & 15 : low[i] >> 4;
    const int code = (four | (high[i] >> (2 * quarter) & 3) << 4) - 32;
    values[i] = d * static_cast<float>(scales[i / 16]) * static_cast<float>(code);
  }
}

void quantise(const float* values, Group& group) {
  float low = values[0], high = values[0];
  for (int i = 1; i < GROUP; ++i) {
    low = std::fmin(low, values[i]);
    high = std::fmax(high, values[i]);
  }
  group.d = (high - low) / 255.0f;
  group.m = low;
  const float inverse = group.d > 0.0f ? 1.0f / group.d : 0.0f;
  for (int i = 0; i < GROUP; ++i) group.codes[i] = static_cast<uint8_t>(std::lrint((values[i] - low) * inverse));
}

void read_group(int32_t source, const uint8_t* row, int index, Group& group) {
  switch (source) {
    case Q8_0: return read_q8_0(row, index, group);
    case Q4_K:
    case Q5_K: return read_k_block(source, row, index, group);
    case Q6_K: {
      float values[GROUP];
      q6_k_values(row, index, values);
      return quantise(values, group);
    }
    default: return read_plain_block(source, row, index, group);
  }
}

void write_scales(const rs_segment& segment, const Group& group, int lane, uint8_t* scales) {
  const size_t width = segment.scales == RS_AFFINE_F32 ? 4 : 2;
  uint8_t* d = scales + width * static_cast<size_t>(lane);
  uint8_t* m = d + width * TILE_OUTPUTS;
  if (segment.scales == RS_AFFINE_F32) {
    memcpy(d, &group.d, width);
    memcpy(m, &group.m, width);
    return;
  }
  memcpy(d, &group.d_bits, width);
  if (segment.scales == RS_AFFINE_F16) memcpy(m, &group.m_bits, width);
}

uint32_t four_codes(const Group& group, int first) {
  uint32_t word;
  memcpy(&word, group.codes + first, sizeof word);
  return word;
}

void write_group(const rs_segment& segment, const Group& group, int lane, uint8_t* packed) {
  for (int step = 0; step < segment.code_bits; ++step) {
    uint32_t word = four_codes(group, 4 * step);
    if (segment.code_bits == 4) word |= four_codes(group, 4 * step + 16) << 4;
    memcpy(packed + step * 64 + lane * 4, &word, sizeof word);
  }
  write_scales(segment, group, lane, packed + code_bytes(segment.code_bits));
}

template <int32_t SOURCE>
uint16_t dense_bf16(const uint8_t* row, int index) {
  if (SOURCE == BF16) return half_at(row + 2 * index);
  if (SOURCE == F16) return to_bf16(from_half(half_at(row + 2 * index)));
  float value;
  memcpy(&value, row + 4 * index, sizeof value);
  return to_bf16(value);
}

template <int32_t SOURCE>
void pack_dense_row(int in_size, const uint8_t* row, int lane, uint8_t* tile) {
  uint8_t* packed = tile + lane * 4;
  for (int first = 0; first < in_size; first += GROUP) {
    uint16_t values[GROUP] = {};
    const int count = std::min(GROUP, in_size - first);
    for (int i = 0; i < count; ++i) values[i] = dense_bf16<SOURCE>(row, first + i);
#pragma GCC unroll 16
    for (int place = 0; place < GROUP; place += 2, packed += 64) {
      const uint32_t word = values[input_at(place)] | static_cast<uint32_t>(values[input_at(place + 1)]) << 16;
      memcpy(packed, &word, sizeof word);
    }
  }
}

void pack_dense_row(int in_size, int32_t source, const uint8_t* row, int lane, uint8_t* tile) {
  switch (source) {
    case BF16: return pack_dense_row<BF16>(in_size, row, lane, tile);
    case F16: return pack_dense_row<F16>(in_size, row, lane, tile);
    default: return pack_dense_row<F32>(in_size, row, lane, tile);
  }
}

// The largest scale of a row, and a bound of its weights.
struct Reach {
  float scale = 0.0f, weight = 0.0f;
  bool is_finite = true;

  void include(const rs_segment& segment, const Group& group) {
    const int last = (1 << segment.code_bits) - 1;
    const float d = std::fabs(group.d);
    is_finite = is_finite && std::isfinite(group.d) && (segment.scales == RS_CENTRED_F16 || std::isfinite(group.m));
    scale = std::max(scale, d);
    if (segment.scales == RS_CENTRED_F16)
      weight = std::max(weight, d * static_cast<float>(std::max(segment.centre, last - segment.centre)));
    else
      weight = std::max(weight, d * static_cast<float>(last) + std::fabs(group.m));
  }

  // Takes weights, and scales for their codes, below 2^15.
  int exponent(int code_bits) const {
    if (weight == 0.0f || !is_finite) return 0;
    const int of_weight = 14 - std::ilogb(weight);
    const int of_scale = scale > 0.0f ? 14 - std::ilogb(scale) - code_exponent(code_bits) : of_weight;
    return std::clamp(std::min(of_weight, of_scale), -60, 60);
  }
};

// False where a scale is infinite or no number.
bool pack_affine_row(const rs_segment& segment, int in_size, int32_t source, const uint8_t* row, int lane, uint8_t* tile) {
  uint8_t* groups = tile + head_bytes(segment.scales);
  Reach reach;
  for (int index = 0; index < num_groups(in_size); ++index) {
    Group group;
    read_group(source, row, index, group);
    write_group(segment, group, lane, groups + group_bytes(segment) * static_cast<size_t>(index));
    reach.include(segment, group);
  }
  const float exponent = static_cast<float>(reach.exponent(segment.code_bits));
  memcpy(tile + sizeof exponent * static_cast<size_t>(lane), &exponent, sizeof exponent);
  return reach.is_finite;
}

// Where a group's input stands in bfloat16 tiles.
int place_of(int input) {
  int place = 0;
  while (input_at(place) != input) ++place;
  return place;
}

float packed_scale(const rs_segment& segment, const uint8_t* scales, int index) {
  if (segment.scales == RS_AFFINE_F32) {
    float value;
    memcpy(&value, scales + 4 * index, sizeof value);
    return value;
  }
  return from_half(half_at(scales + 2 * index));
}

float unpacked(const rs_segment& segment, const uint8_t* packed, int lane, int i) {
  const int step = segment.code_bits == 4 ? i % 16 / 4 : i / 4;
  const uint8_t byte = packed[step * 64 + lane * 4 + i % 4];
  const int code = segment.code_bits == 8 ? byte : i < 16 ? byte & 15 : byte >> 4;
  const uint8_t* scales = packed + code_bytes(segment.code_bits);
  const float d = packed_scale(segment, scales, lane);
  if (segment.scales == RS_CENTRED_F16) return d * static_cast<float>(code - segment.centre);
  return d * static_cast<float>(code) + packed_scale(segment, scales, TILE_OUTPUTS + lane);
}

}  // namespace

int64_t rs_segment_bytes(const rs_segment* segment, int32_t in_size) {
  return static_cast<int64_t>(tile_bytes(*segment, in_size)) * 2 * num_panels(segment->out_size);
}

int32_t rs_pack(const rs_segment* segment, int32_t in_size, int32_t source, const void* rows, int64_t row_bytes,
             const int32_t* row_order) {
  uint8_t* tiles = const_cast<uint8_t*>(segment->tiles);
  memset(tiles, 0, static_cast<size_t>(rs_segment_bytes(segment, in_size)));
  bool is_finite = true;
  for (int output = 0; output < segment->out_size; ++output) {
    const int64_t from = row_order ? row_order[output] : output;
    const uint8_t* row = static_cast<const uint8_t*>(rows) + from * row_bytes;
    uint8_t* tile = tiles + tile_bytes(*segment, in_size) * static_cast<size_t>(output / TILE_OUTPUTS);
    if (segment->scales == RS_DENSE_BF16)
      pack_dense_row(in_size, source, row, output % TILE_OUTPUTS, tile);
    else
      is_finite = pack_affine_row(*segment, in_size, source, row, output % TILE_OUTPUTS, tile) && is_finite;
  }
  return is_finite;
}

void rs_unpack_row(const rs_segment* segment, int32_t in_size, int32_t row, float* values) {
  const uint8_t* tile = segment->tiles + tile_bytes(*segment, in_size) * static_cast<size_t>(row / TILE_OUTPUTS) + head_bytes(segment->scales);
  const int lane = row % TILE_OUTPUTS;
  for (int i = 0; i < in_size; ++i) {
    const uint8_t* packed = tile + group_bytes(*segment) * static_cast<size_t>(i / GROUP);
    if (segment->scales == RS_DENSE_BF16)
      values[i] = from_bf16(half_at(packed + place_of(i % GROUP) / 2 * 64 + lane * 4 + place_of(i % GROUP) % 2 * 2));
    else
      values[i] = unpacked(*segment, packed, lane, i % GROUP);
  }
}
