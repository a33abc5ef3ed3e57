// `Level`: the kernels of one instruction set, each the work of one thread on one piece.
//
// The operations cut their work into such pieces, and know no instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"
#include "packing.h"

// Activations as a linear reads them: codes of twelve bits in groups of 32 with a scale each, or
// bfloat16 in the order of `input_at`, or both; null where a form is not needed. Inputs beyond in_size
// are zeros.
//
// Rows lie in blocks of `block_rows`: for every group of inputs a block's rows follow one another, as
// a tile of the matrix instructions loads them.
//
// A code is 16 * high + low; a group has its 32 high bytes, then its 32 low ones. Eight bits would
// do for the speed of one product instead of two, but move log-probabilities by 0.06 on the mean
// where twelve bits move them by 0.004 (SmolLM2-135M, 500 tokens of prose); ten bits: 0.016.
struct Rows {
  int num_groups;
  int block_rows;   // all rows where they are few, else TILE_ROWS
  int8_t* codes;    // [blocks, groups, block_rows, 64]: value = scale * code
  float* scales;    // [blocks, groups, block_rows]
  int32_t* sums;    // [blocks, groups, block_rows]: of a group's codes
  float* offsets;   // [blocks, groups, block_rows]: scale * sum
  uint16_t* dense;  // [blocks, groups, block_rows, 32] bfloat16

  size_t place(int row, int group) const {
    return static_cast<size_t>((row / block_rows * num_groups + group) * block_rows + row % block_rows);
  }
};

// Where tiles read inputs, these are so many times as large: weights in tiles are tiny, and tile products take
// subnormal results for zeros. So inputs, and sums of dense weights' products, are finite below 2^64 only.
constexpr float TILED_INPUT_FACTOR = 0x1p64f;

constexpr int LOW_BITS = 4;
constexpr float MAX_CODE = 127 << LOW_BITS;
constexpr int CODE_BYTES = 2 * GROUP;
// The rows of a tile. Kernels may read, though never use, so many rows behind the last.
constexpr int TILE_ROWS = 16;

// One panel of a linear's outputs for some rows. Columns beyond the segment's are not written.
struct PanelTask {
  const rs_segment* segment;
  const float* bias;  // the segment's first, or null
  int in_size;
  int panel;
  int first_row;
  int num_rows;  // at most the level's max_panel_rows
  float* output;  // of first_row and the panel's first column
  int64_t output_stride;
  uint8_t* scratch;  // PANEL_SCRATCH_BYTES
  const uint8_t* ahead;  // packed weights that the same thread will probably read next, as many bytes; or null
};

constexpr int MAX_PANELS_AT_ONCE = 2;
constexpr int MAX_PANEL_ROWS = 64, MAX_TILED_ROWS = 512;  // `max_panel_rows` without and with AMX
constexpr size_t PANEL_SCRATCH_BYTES = 172 << 10;

// Queries of a chunk with the query heads of some key heads, and some tiles of keys.
struct AttendTask {
  const rs_heads* heads;
  const rs_cache* cache;
  const rs_group* group;
  int chunk;
  int first_head, num_heads;  // key heads; several only where all rows together are at most TILE_ROWS
  int64_t first_position;     // of the first query
  int num_queries;
  int64_t first_tile, end_tile;  // positions; multiples of KEY_TILE
  const float* query;            // of the first query, head 0
  int64_t query_stride;
  float* output;         // [.., H * D] of the first query
  float* states;         // what its rows have summed up, attend_state_floats
  int64_t state_stride;  // 0, or floats between states where each tile has its own
  uint8_t* scratch;      // attend_scratch_bytes
  bool is_first;         // of those its thread takes in order: nothing has sent for its keys and values
  const AttendTask* next;  // what the same thread will probably compute after this, or null
};

constexpr int KEY_TILE = 128;  // positions whose weights are relative to a peak of their own

inline size_t cached_head_bytes(int32_t format, int head_size) {
  return format == RS_CACHE_INT8 ? static_cast<size_t>(head_size) + sizeof(float) : 2 * static_cast<size_t>(head_size);
}

constexpr int padded_head_size(int head_size) { return (head_size + 31) / 32 * 32; }

constexpr int whole_tile_rows(int rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS; }

// For so many rows: their sums, peaks and totals.
constexpr int64_t attend_state_floats(int rows, int head_size) { return int64_t{whole_tile_rows(rows)} * (padded_head_size(head_size) + 2); }

constexpr size_t attend_scratch_bytes(int rows, int num_heads, int head_size) {
  const size_t size = static_cast<size_t>(padded_head_size(head_size)), heads = static_cast<size_t>(num_heads);
  const size_t queries = static_cast<size_t>(whole_tile_rows(rows)) * size * 2 * heads;
  return queries + 8 * static_cast<size_t>(rows) + KEY_TILE * (size * (6 + 2 * heads) + 192) + 2 * TILE_ROWS * size * 4 + 4096;
}

struct Level {
  bool only_bfloat16;  // its linears read no codes
  int max_panel_rows;  // a multiple of TILE_ROWS
  // Before a caller's first linear: other libraries may have shaped the tiles of its thread.
  void (*begin_call)();
  // Values [32 first_group, 32 first_group + count) of a row, in the forms that `rows` has.
  void (*prepare)(const Rows& rows, int row, int first_group, const float* values, int count);
  void (*norm)(const float* hidden, const float* residual, const float* weight, float eps, int size, float* normed,
               float* total);
  void (*silu_mul)(const float* gate, const float* up, int size, float* output);
  // Up to MAX_PANELS_AT_ONCE panels for the same rows.
  void (*linear_panels)(const PanelTask* tasks, int num_tasks, const Rows& rows);
  // silu(gate) * up of a panel of each for the same rows, as inputs of the linear that reads `gated`.
  void (*gated_panel)(const PanelTask& gate, const PanelTask& up, const Rows& rows, const Rows& gated);
  // Turns a head's halves by cos and sin [D / 2]; in place.
  void (*rotate)(float* head, const float* cos, const float* sin, int head_size);
  // Heads [num_heads, D] in the cache's format, one after another.
  void (*to_cache)(const float* values, int num_heads, int head_size, int32_t format, uint8_t* cached);
  // Adds up what the task's rows see of its tiles, in one state or in a state for each tile.
  void (*attend)(const AttendTask& task);
  // Adds up so many states into the first, in their order, and writes the output.
  void (*finish_attend)(const AttendTask& task, int num_states);
  int32_t (*read_all)(const uint8_t* memory, size_t num_bytes);
  // Multiply-adds of codes that so many rounds of nothing else make.
  int64_t (*multiply_codes)(int num_rounds);
};
