// Many rows at once on AMX tiles: the same exact sums of codes, the same floating-point steps.
//
// A batch of two groups is taken through all blocks of 16 rows before the next one: its weights are
// unpacked once, and with the rows' sums they stay in the first-level cache. While the vector units
// add one block's shares of a batch, the tiles multiply the next block, into other memory: what the
// tiles have stored is not to be loaded soon, or the loads wait. Beside tile instructions the machine
// makes one vector operation a cycle instead of two, so those four of each share are the limit.
// Tried: one group at a time with the sums of 16 rows in registers; 0.6 of the speed.
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
enum Tile : int { CODES = 0, LOW_CODES = 1, LEFT_WEIGHTS = 2, RIGHT_WEIGHTS = 3, LEFT_SUMS = 4, RIGHT_SUMS = 5, LEFT_LOW_SUMS = 6, RIGHT_LOW_SUMS = 7 };

constexpr size_t TILE_BYTES = 1024;

constexpr int BATCH = 2;  // groups; with four the first-level cache overflows

// Products of a block's rows with the panel's outputs: of each group the left tile, then the right
// one, and with eight bits of each the high bytes' products, then the low ones'.
template <int BITS>
struct alignas(64) Products {
  int32_t sums[BATCH][2][BITS / 4][TILE_OUTPUTS][TILE_OUTPUTS];
};

template <int BITS>
struct alignas(64) TiledScratch {
  uint8_t weights[2][BATCH][2][TILE_BYTES * 4 / BITS];
  Products<BITS> products[2];
  float sums[MAX_PANEL_ROWS][2][TILE_OUTPUTS];
};

template <int BITS>
void shape_tiles(int num_rows) {
  TileShapes shapes;
  const int depth = BITS == 4 ? CODE_BYTES : GROUP;
  for (int tile = CODES; tile <= LOW_CODES; ++tile) shapes.set(tile, num_rows, depth);
  for (int tile = LEFT_WEIGHTS; tile <= RIGHT_WEIGHTS; ++tile) shapes.set(tile, depth / 4, 64);
  for (int tile = LEFT_SUMS; tile <= RIGHT_LOW_SUMS; ++tile) shapes.set(tile, num_rows, 64);
  shapes.use();
}

template <int BITS>
RS_INLINE void unpack_tile(const uint8_t* packed, uint8_t* weights) {
  constexpr int NUM_STEPS = static_cast<int>(code_bytes(BITS)) / 64;
#pragma GCC unroll 8
  for (int step = 0; step < NUM_STEPS; ++step) {
    const Words codes = load<Words>(packed + 64 * step);
    if constexpr (BITS == 4) {
      constexpr int TIMES_16 = 0, PLAIN = GROUP / 4, HALF = GROUP / 8;  // steps of a tile
      store(weights + 64 * (TIMES_16 + step), codes << 4 & 0xf0f0f0f0);
      store(weights + 64 * (TIMES_16 + HALF + step), codes & 0xf0f0f0f0);
      store(weights + 64 * (PLAIN + step), codes & 0x0f0f0f0f);
      store(weights + 64 * (PLAIN + HALF + step), codes >> 4 & 0x0f0f0f0f);
    } else {
      store(weights + 64 * step, codes);
    }
  }
}

// A panel's linear map for the task's first `num_rows` rows.
template <int BITS, int SCALES>
class TiledPanel {
  static_assert(sizeof(TiledScratch<BITS>) <= PANEL_SCRATCH_BYTES);
  static constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);

 public:
  TiledPanel(const PanelTask& task, const Rows& rows, int num_rows)
      : task_(task), rows_(rows), scratch_(*reinterpret_cast<TiledScratch<BITS>*>(task.scratch)), num_rows_(num_rows),
        num_blocks_((num_rows + rows.block_rows - 1) / rows.block_rows), num_batches_((rows.num_groups + BATCH - 1) / BATCH) {
    const size_t tile_bytes = STRIDE * static_cast<size_t>(rows.num_groups);
    packed_[0] = task.segment->tiles + tile_bytes * 2 * static_cast<size_t>(task.panel);
    packed_[1] = packed_[0] + tile_bytes;
  }

  void run() {
    shape_tiles<BITS>(rows_.block_rows);
    memset(scratch_.sums, 0, sizeof scratch_.sums[0] * static_cast<size_t>(num_rows_));
    unpack(0);
    Part part{0, 0, 0}, next = part;
    for (int group = 0; group < batch_size(0); ++group) multiply(part, group);
    store_products();
    for (; part.batch < num_batches_; part = next) {
      next = after(part);
      if (part.block == 0 && part.batch + 1 < num_batches_) unpack(part.batch + 1);
      add_part(part, next);
    }
    _tile_release();
    for (int row = 0; row < num_rows_; ++row)
      for (int side = 0; side < 2; ++side)
        write_outputs(task_, task_.output + task_.output_stride * row, side, load<Floats>(scratch_.sums[row][side]));
  }

 private:
  // One block's share of one batch; `index` counts them.
  struct Part {
    int batch, block, index;
  };

  Part after(const Part& part) const {
    return part.block + 1 < num_blocks_ ? Part{part.batch, part.block + 1, part.index + 1} : Part{part.batch + 1, 0, part.index + 1};
  }

  int batch_size(int batch) const {
    if (batch >= num_batches_) return 0;
    return rows_.num_groups - batch * BATCH < BATCH ? rows_.num_groups - batch * BATCH : BATCH;
  }

  size_t place(const Part& part) const { return rows_.place(task_.first_row + part.block * rows_.block_rows, part.batch * BATCH); }

  void unpack(int batch) {
    for (int group = 0; group < batch_size(batch); ++group)
      for (int side = 0; side < 2; ++side) {
        const uint8_t* packed = packed_[side] + STRIDE * static_cast<size_t>(batch * BATCH + group);
        for (size_t line = 0; line < STRIDE; line += 64) __builtin_prefetch(packed + PREFETCH_BYTES + line);
        unpack_tile<BITS>(packed, scratch_.weights[batch % 2][group][side]);
      }
  }

  // Begins a group's products by both tiles, and stores those begun before: until then the vector
  // units had something else to do. (The instructions take literals only: the numbers are Tile's.)
  RS_INLINE void multiply(const Part& part, int group) {
    store_products();
    const int8_t* codes = rows_.codes + CODE_BYTES * (place(part) + static_cast<size_t>(group * rows_.block_rows));
    const auto& weights = scratch_.weights[part.batch % 2][group];
    settle_memory(&weights);
    _tile_loadd(0, codes, CODE_BYTES);
    _tile_loadd(2, weights[0], 64);
    _tile_zero(4);
    _tile_dpbsud(4, 0, 2);
    _tile_loadd(3, weights[1], 64);
    _tile_zero(5);
    _tile_dpbsud(5, 0, 3);
    if constexpr (BITS == 8) {
      _tile_loadd(1, codes + GROUP, CODE_BYTES);
      _tile_zero(6);
      _tile_dpbsud(6, 1, 2);
      _tile_zero(7);
      _tile_dpbsud(7, 1, 3);
    }
    begun_ = &scratch_.products[part.index % 2].sums[group][0];
  }

  RS_INLINE void store_products() {
    if (begun_ == nullptr) return;
    _tile_stored(4, begun_[0][0], 64);
    _tile_stored(5, begun_[1][0], 64);
    if constexpr (BITS == 8) {
      _tile_stored(6, begun_[0][1], 64);
      _tile_stored(7, begun_[1][1], 64);
    }
    settle_memory(begun_);
    begun_ = nullptr;
  }

  void add_part(const Part& part, const Part& next) {
    static_assert(BATCH == 2);
    return batch_size(part.batch) == 2 ? add_shares<2>(part, next) : add_shares<1>(part, next);
  }

  // Adds a part's shares of COUNT groups to its rows' sums; between the rows, multiplies the next part.
  template <int COUNT>
  void add_shares(const Part& part, const Part& next) {
    GroupScales<SCALES> scales[COUNT][2];
#pragma GCC unroll 4
    for (int group = 0; group < COUNT; ++group)
      for (int side = 0; side < 2; ++side)
        scales[group][side] = GroupScales<SCALES>(packed_[side] + STRIDE * static_cast<size_t>(part.batch * BATCH + group) + code_bytes(BITS));
    const Rows rows = rows_;  // a copy, which no store can change
    const int centre = task_.segment->centre, first_row = part.block * rows.block_rows;
    const int count = num_rows_ - first_row < rows.block_rows ? num_rows_ - first_row : rows.block_rows;
    const Products<BITS>& products = scratch_.products[part.index % 2];
    const int num_groups = batch_size(next.batch);
    size_t row_place = place(part);
    const Part later = next.batch < num_batches_ ? after(next) : next;
    const int8_t* later_codes = rows.codes + CODE_BYTES * place(later.batch < num_batches_ ? later : part);
    const size_t group_bytes = CODE_BYTES * static_cast<size_t>(rows.block_rows);
    for (int row = 0, group = 0, due = count - 1; row < count; ++row, ++row_place) {
      for (due += num_groups; due >= count; due -= count) multiply(next, group++);
      for (size_t ahead = 0; ahead < BATCH; ++ahead) __builtin_prefetch(later_codes + ahead * group_bytes + CODE_BYTES * row);
      Floats sums[2] = {load<Floats>(scratch_.sums[first_row + row][0]), load<Floats>(scratch_.sums[first_row + row][1])};
#pragma GCC unroll 4
      for (int group = 0; group < COUNT; ++group)
#pragma GCC unroll 2
        for (int side = 0; side < 2; ++side) {
          Ints dots = load<Ints>(products.sums[group][side][0][row]);
          if constexpr (BITS == 8) dots = (dots << LOW_BITS) + load<Ints>(products.sums[group][side][1][row]);
          sums[side] = scales[group][side].add(sums[side], dots, rows, row_place + static_cast<size_t>(group * rows.block_rows), centre);
        }
      store(scratch_.sums[first_row + row][0], sums[0]);
      store(scratch_.sums[first_row + row][1], sums[1]);
    }
    store_products();
  }

  const PanelTask& task_;
  const Rows& rows_;
  TiledScratch<BITS>& scratch_;
  const int num_rows_, num_blocks_, num_batches_;
  const uint8_t* packed_[2];
  int32_t (*begun_)[BITS / 4][TILE_OUTPUTS][TILE_OUTPUTS] = nullptr;  // where the tiles' products belong
};

// Computes all of the task's rows where they are enough, but for a few of the last block; says how
// many it has computed.
template <int BITS, int SCALES>
int tiled_rows(const PanelTask& task, const Rows& rows) {
  const int rest = task.num_rows % rows.block_rows;
  const int num_rows = rest < MIN_TILED_ROWS ? task.num_rows - rest : task.num_rows;
  if (num_rows == 0 || rows.block_rows < MIN_TILED_ROWS) return 0;
  TiledPanel<BITS, SCALES>(task, rows, num_rows).run();
  return num_rows;
}

#else

template <int BITS, int SCALES>
int tiled_rows(const PanelTask&, const Rows&) {
  return 0;
}

#endif

}  // namespace
}  // namespace RS_LEVEL
