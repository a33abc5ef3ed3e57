// Many rows at once on AMX tiles: the same exact sums of codes, the same floating-point steps.
//
// A tile of 16 outputs is unpacked whole; then each block of up to 16 rows runs through its groups,
// its sums in registers: while the vector units add one group's share, the tiles multiply the next.
// Tried: batches of groups for all rows, sums in memory; products and shares took turns instead of
// overlapping, at half the speed.
#pragma once

#include "linear.h"
#include "tiles.h"

namespace RS_LEVEL {
namespace {

#if defined(__AMX_INT8__)

constexpr int MIN_TILED_ROWS = 5;  // below, the tiles' rows stay too empty
// With four bits a group's weights stand twice in a tile, times 16 for the codes' high bytes and
// plain for the low ones, and one product takes both. Eight bits leave no room for that: high and
// low bytes are multiplied apart.
enum Tile : int { HIGH_CODES = 0, LOW_CODES = 1, WEIGHTS = 2, SUMS = 3, LOW_SUMS = 4 };

// Products of all pairs of a row and an output, of one group: of the codes' high bytes and, with
// eight bits, of the low ones.
struct alignas(64) Products {
  int32_t high[TILE_OUTPUTS][TILE_OUTPUTS];
  int32_t low[TILE_OUTPUTS][TILE_OUTPUTS];
};

template <int BITS>
constexpr size_t WEIGHT_TILE_BYTES = BITS == 4 ? 1024 : 512;

template <int BITS>
void shape_tiles(int num_rows) {
  TileShapes shapes;
  const int depth = BITS == 4 ? CODE_BYTES : GROUP;
  shapes.set(HIGH_CODES, num_rows, depth);
  shapes.set(LOW_CODES, num_rows, depth);
  shapes.set(WEIGHTS, depth / 4, 64);
  shapes.set(SUMS, num_rows, 64);
  shapes.set(LOW_SUMS, num_rows, 64);
  shapes.use();
}

template <int BITS>
RS_INLINE void unpack_tile(const uint8_t* packed, uint8_t* weights) {
#pragma GCC unroll 8
  for (int step = 0; step < GROUP / 4; ++step) {
    const Words codes = (Words)codes_at<BITS>(packed, step);
    if constexpr (BITS == 4) {
      store(weights + 64 * step, codes << LOW_BITS);
      store(weights + 64 * (step + GROUP / 4), codes);
    } else {
      store(weights + 64 * step, codes);
    }
  }
}

// The products of one group. (The instructions take literals only: the numbers are those of Tile.)
template <int BITS>
RS_INLINE void multiply_tiles(const int8_t* codes, size_t row_bytes, const uint8_t* weights, Products& products) {
  settle_memory(&products);
  _tile_loadd(0, codes, row_bytes);
  _tile_loadd(2, weights, 64);
  _tile_zero(3);
  _tile_dpbsud(3, 0, 2);
  _tile_stored(3, products.high, 64);
  if constexpr (BITS == 8) {
    _tile_loadd(1, codes + GROUP, row_bytes);
    _tile_zero(4);
    _tile_dpbsud(4, 1, 2);
    _tile_stored(4, products.low, 64);
  }
  settle_memory(&products);
}

// One tile of outputs for ROWS rows from `row` on. Of a block that is not full the rows behind it
// are computed too, from what lies there, and not written.
template <int BITS, int SCALES, int ROWS>
void run_block_of_rows(const PanelTask& task, const Rows& all_rows, int row, int side, const uint8_t* packed, const uint8_t* weights) {
  const Rows rows = all_rows;  // a copy, which no store can change
  const size_t num_groups = static_cast<size_t>(rows.num_groups), row_bytes = num_groups * CODE_BYTES;
  const size_t first_place = num_groups * static_cast<size_t>(row);
  const int8_t* codes = rows.codes + first_place * CODE_BYTES;
  Products products[2];
  Floats sums[ROWS] = {};
  multiply_tiles<BITS>(codes, row_bytes, weights, products[0]);
  for (size_t group = 0; group < num_groups; ++group, packed += code_bytes(BITS) + scale_bytes(SCALES)) {
    if (group + 1 < num_groups)
      multiply_tiles<BITS>(codes + CODE_BYTES * (group + 1), row_bytes, weights + WEIGHT_TILE_BYTES<BITS> * (group + 1), products[(group + 1) % 2]);
    const GroupScales<SCALES> scales(packed + code_bytes(BITS));
    const Products& own = products[group % 2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      Ints dots = load<Ints>(own.high[r]);
      if constexpr (BITS == 8) dots = (dots << LOW_BITS) + load<Ints>(own.low[r]);
      sums[r] = scales.add(sums[r], dots, rows, first_place + group + num_groups * static_cast<size_t>(r), task.segment->centre);
    }
  }
  for (int r = 0; r < ROWS && row + r < task.first_row + task.num_rows; ++r)
    write_outputs(task, task.output + task.output_stride * (row - task.first_row + r), side, sums[r]);
}

template <int BITS, int SCALES>
void run_blocks(const PanelTask& task, const Rows& rows, int side, int block_rows, const uint8_t* packed) {
  for (int row = task.first_row; row < task.first_row + task.num_rows; row += block_rows) {
    switch (block_rows) {
      case 8: run_block_of_rows<BITS, SCALES, 8>(task, rows, row, side, packed, task.scratch); break;
      case 12: run_block_of_rows<BITS, SCALES, 12>(task, rows, row, side, packed, task.scratch); break;
      default: run_block_of_rows<BITS, SCALES, 16>(task, rows, row, side, packed, task.scratch); break;
    }
  }
}

// Computes all of the task's rows where they are enough; says how many it has computed.
template <int BITS, int SCALES>
int tiled_rows(const PanelTask& task, const Rows& rows) {
  if (task.num_rows < MIN_TILED_ROWS) return 0;
  constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);
  const size_t num_groups = static_cast<size_t>(rows.num_groups);
  const int num_blocks = (task.num_rows + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
  const int block_rows = (task.num_rows + 4 * num_blocks - 1) / (4 * num_blocks) * 4;
  shape_tiles<BITS>(block_rows);
  for (int side = 0; side < 2; ++side) {
    const uint8_t* packed = task.segment->tiles + STRIDE * num_groups * (2 * static_cast<size_t>(task.panel) + static_cast<size_t>(side));
    for (size_t group = 0; group < num_groups; ++group) {
      for (size_t line = 0; line < STRIDE; line += 64) __builtin_prefetch(packed + STRIDE * group + PREFETCH_BYTES + line);
      unpack_tile<BITS>(packed + STRIDE * group, task.scratch + WEIGHT_TILE_BYTES<BITS> * group);
    }
    run_blocks<BITS, SCALES>(task, rows, side, block_rows, packed);
  }
  _tile_release();
  return task.num_rows;
}

#else

template <int BITS, int SCALES>
int tiled_rows(const PanelTask&, const Rows&) {
  return 0;
}

#endif

}  // namespace
}  // namespace RS_LEVEL
