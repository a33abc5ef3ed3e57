// Many rows at once on AMX tiles: the same exact sums of codes, the same floating-point steps.
//
// Groups are taken four at a time: their weights are unpacked into tile form, then every block of
// up to 16 rows multiplies them and adds its share. What is in use stays in the first-level cache.
#pragma once

#include "linear.h"

namespace RS_LEVEL {
namespace {

#if defined(__AMX_INT8__)

constexpr int MIN_TILED_ROWS = 5;  // below, the tiles' rows stay too empty
constexpr int BATCH = 4;           // groups
constexpr size_t TILE_BYTES = 1024;

struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t num_rows[16] = {};

  void set(int tile, int rows, int bytes) {
    num_rows[tile] = static_cast<uint8_t>(rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

// Tile 0: codes of up to 16 rows. Tiles 1 and 2: weights. Tiles 4 to 7: sums. With four bits the
// weights stand twice, times 16 for the high bytes and plain for the low ones, and one product
// takes both; eight bits leave no room for that, so high and low bytes (tiles 0 and 3) are
// multiplied apart.
struct Scratch {
  alignas(64) uint8_t weights[BATCH][2][TILE_BYTES];
  alignas(64) int32_t dots[2][BATCH][TILE_OUTPUTS][TILE_OUTPUTS];
  alignas(64) int32_t low_dots[2][TILE_OUTPUTS][TILE_OUTPUTS];
  alignas(64) float sums[2][MAX_PANEL_ROWS][TILE_OUTPUTS];
};
static_assert(sizeof(Scratch) <= PANEL_SCRATCH_BYTES);

// The compiler does not know which memory the tile instructions read and write.
RS_INLINE void settle_memory(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

template <int BITS>
void shape_tiles(int num_rows) {
  TileShapes shapes;
  const int depth = BITS == 4 ? CODE_BYTES : GROUP;
  shapes.set(0, num_rows, depth);
  shapes.set(3, num_rows, depth);
  shapes.set(1, depth / 4, 64);
  shapes.set(2, depth / 4, 64);
  for (int tile = 4; tile < 8; ++tile) shapes.set(tile, num_rows, 64);
  settle_memory(&shapes);
  _tile_loadconfig(&shapes);
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

template <int BITS>
RS_INLINE void multiply_tiles(const int8_t* codes, size_t row_bytes, Scratch& scratch, int index) {
  settle_memory(&scratch);
  _tile_loadd(0, codes, row_bytes);
  _tile_loadd(1, scratch.weights[index][0], 64);
  _tile_loadd(2, scratch.weights[index][1], 64);
  _tile_zero(4);
  _tile_dpbsud(4, 0, 1);
  _tile_stored(4, scratch.dots[0][index], 64);
  _tile_zero(5);
  _tile_dpbsud(5, 0, 2);
  _tile_stored(5, scratch.dots[1][index], 64);
  settle_memory(&scratch);
}

// Eight bits: the low bytes' products, and both together.
RS_INLINE void add_low_products(const int8_t* codes, size_t row_bytes, int num_rows, Scratch& scratch, int index) {
  _tile_loadd(3, codes + GROUP, row_bytes);
  _tile_zero(6);
  _tile_dpbsud(6, 3, 1);
  _tile_stored(6, scratch.low_dots[0], 64);
  _tile_zero(7);
  _tile_dpbsud(7, 3, 2);
  _tile_stored(7, scratch.low_dots[1], 64);
  settle_memory(&scratch);
  for (int side = 0; side < 2; ++side)
    for (int r = 0; r < num_rows; ++r)
      store(scratch.dots[side][index][r],
            (load<Ints>(scratch.dots[side][index][r]) << LOW_BITS) + load<Ints>(scratch.low_dots[side][r]));
}

// Adds a batch of groups to the sums of one block of rows, in the groups' order.
template <int SCALES, int COUNT>
RS_INLINE void add_batch(const uint8_t* scales, size_t stride, const Rows& all_rows, size_t place, int num_rows, int centre,
                         const int32_t (*dots)[TILE_OUTPUTS][TILE_OUTPUTS], float (*sums)[TILE_OUTPUTS]) {
  const Rows rows = all_rows;  // a copy, which the stores below cannot change
  GroupScales<SCALES> own[COUNT];
#pragma GCC unroll 4
  for (int g = 0; g < COUNT; ++g) own[g] = GroupScales<SCALES>(scales + stride * static_cast<size_t>(g));
  for (int r = 0; r < num_rows; ++r, place += static_cast<size_t>(rows.num_groups)) {
    Floats total = load<Floats>(sums[r]);
#pragma GCC unroll 4
    for (int g = 0; g < COUNT; ++g)
      total = own[g].add(total, load<Ints>(dots[g][r]), rows, place + static_cast<size_t>(g), centre);
    store(sums[r], total);
  }
}

template <int BITS, int SCALES, int COUNT>
void run_batch(const PanelTask& task, const Rows& rows, int group, int block_rows, Scratch& scratch) {
  constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);
  const uint8_t* packed[2];
  const uint8_t* scales[2];
  for (int side = 0; side < 2; ++side) {
    const size_t tile = 2 * static_cast<size_t>(task.panel) + static_cast<size_t>(side);
    packed[side] = task.segment->tiles + STRIDE * (static_cast<size_t>(rows.num_groups) * tile + static_cast<size_t>(group));
    scales[side] = packed[side] + code_bytes(BITS);
    for (int g = 0; g < COUNT; ++g) unpack_tile<BITS>(packed[side] + STRIDE * static_cast<size_t>(g), scratch.weights[g][side]);
  }
  const size_t row_bytes = static_cast<size_t>(rows.num_groups) * CODE_BYTES;
  for (int first = 0; first < task.num_rows; first += block_rows) {
    const int num_rows = task.num_rows - first < block_rows ? task.num_rows - first : block_rows;
    const int8_t* codes = rows.codes + row_bytes * static_cast<size_t>(task.first_row + first) + static_cast<size_t>(group) * CODE_BYTES;
    for (int g = 0; g < COUNT; ++g) {
      multiply_tiles<BITS>(codes + g * CODE_BYTES, row_bytes, scratch, g);
      if constexpr (BITS == 8) add_low_products(codes + g * CODE_BYTES, row_bytes, num_rows, scratch, g);
    }
    const size_t place = static_cast<size_t>(rows.num_groups) * static_cast<size_t>(task.first_row + first) + static_cast<size_t>(group);
    for (int side = 0; side < 2; ++side)
      add_batch<SCALES, COUNT>(scales[side], STRIDE, rows, place, num_rows, task.segment->centre,
                               scratch.dots[side], scratch.sums[side] + first);
  }
}

// Computes all of the task's rows where they are enough; says how many it has computed.
template <int BITS, int SCALES>
int tiled_rows(const PanelTask& task, const Rows& rows) {
  if (task.num_rows < MIN_TILED_ROWS) return 0;
  Scratch& scratch = *reinterpret_cast<Scratch*>(task.scratch);
  const int num_blocks = (task.num_rows + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
  const int block_rows = (task.num_rows + num_blocks - 1) / num_blocks;
  for (auto& sums : scratch.sums) memset(sums, 0, sizeof sums[0] * static_cast<size_t>(task.num_rows));
  shape_tiles<BITS>(block_rows);
  int group = 0;
  for (; group + BATCH <= rows.num_groups; group += BATCH) run_batch<BITS, SCALES, BATCH>(task, rows, group, block_rows, scratch);
  for (; group < rows.num_groups; ++group) run_batch<BITS, SCALES, 1>(task, rows, group, block_rows, scratch);
  _tile_release();
  for (int row = 0; row < task.num_rows; ++row)
    write_outputs(task, task.output + task.output_stride * row, load<Floats>(scratch.sums[0][row]), load<Floats>(scratch.sums[1][row]));
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
