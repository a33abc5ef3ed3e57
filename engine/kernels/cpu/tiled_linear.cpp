// Linear maps on AMX tiles: every weight becomes bfloat16 on its way into a tile.
//
// A tile product takes 32 inputs of up to 16 rows and 16 outputs. An output's sums stay in their tile
// while the groups are taken in ascending order, so a row's result depends neither on the rows beside
// it nor on how the work is cut: between spans of groups the sums are stored and loaded as they are.
//
// Tried before: 8-bit products with the sums scaled group by group in vector registers. It rounds
// less, and takes some 2.7 times as long for 512 rows: while a tile is stored, which takes as long as a
// product, the vector units stand still.
#include <algorithm>

#include "linear.h"
#include "tiles.h"
#include "weight_tiles.h"

#if defined(__AMX_BF16__)

namespace RS_LEVEL {
namespace {

constexpr size_t PREFETCH_BYTES = 4096;

// Groups whose weights are unpacked together, for all rows: they stay in the first-level cache, with
// room for the rows' inputs that pass by. More rows make up for the room that more groups take.
constexpr int MAX_SPAN = 16;
constexpr int FEW_BLOCKS = 8, SPAN_OF_FEW = 8;
constexpr int RING = 4;  // a tile for each strip: 4096 bytes, beyond which stores are mistaken for one another

struct alignas(64) TiledScratch {
  uint8_t ring[RING][TILE_BYTES];
  uint8_t weights[MAX_SPAN][2][TILE_BYTES];
  float sums[MAX_TILED_ROWS / TILE_ROWS][2][TILE_ROWS][TILE_OUTPUTS];
};
static_assert(sizeof(TiledScratch) <= PANEL_SCRATCH_BYTES);

// Tiles 0 and 1 take rows, 2 and 3 weights, 4 to 7 sums: those of tile 0 by 2 and 3, then of tile 1.
// They keep their shapes, since the next panel has the same.
void shape_tiles(int num_rows) {
  if (rows_of_linears == num_rows) return;
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) shapes.set(tile, tile == 2 || tile == 3 ? TILE_ROWS : num_rows, 64);
  shapes.use();
  rows_of_linears = num_rows;
}

// One of a panel's two tiles.
template <class Weights>
struct Strip {
  static size_t bytes(int num_groups) { return Weights::HEAD + Weights::STRIDE * static_cast<size_t>(num_groups); }

  Strip(const PanelTask& task, int num_groups, int side)
      : tile(task.segment->tiles + bytes(num_groups) * static_cast<size_t>(2 * task.panel + side)), groups(tile + Weights::HEAD),
        ahead(task.ahead + bytes(num_groups) * static_cast<size_t>(side)), weights(*task.segment, tile) {}

  const uint8_t *tile, *groups, *ahead;
  Weights weights;
};

template <class Weights>
class TiledPanel {
 public:
  TiledPanel(const PanelTask& task, const Rows& rows)
      : task_(task), rows_(rows), scratch_(*reinterpret_cast<TiledScratch*>(task.scratch)),
        strips_{{task, rows.num_groups, 0}, {task, rows.num_groups, 1}},
        num_blocks_((task.num_rows + TILE_ROWS - 1) / TILE_ROWS), group_halves_(static_cast<size_t>(rows.block_rows) * GROUP) {}

  void run() {
    shape_tiles(TILE_ROWS);
    const int span = num_blocks_ < FEW_BLOCKS ? SPAN_OF_FEW : MAX_SPAN;
    const int num_spans = (rows_.num_groups + span - 1) / span;
    for (int index = 0; index < num_spans; ++index)
      multiply_span(rows_.num_groups * index / num_spans, rows_.num_groups * (index + 1) / num_spans);
    write();
  }

 private:
  const uint16_t* inputs(int block, int group) const { return rows_.dense + rows_.place(task_.first_row + block * TILE_ROWS, group) * GROUP; }

  RS_INLINE void unpack(const Weights& weights, int side, int group, uint8_t* tile) const {
    const uint8_t* packed = strips_[side].groups + Weights::STRIDE * static_cast<size_t>(group);
    for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(packed + PREFETCH_BYTES + line);
    weights.unpack(packed, tile);
  }

  void multiply_span(int first, int last) {
    for (int side = 0; side < 2; ++side) {
      const Weights weights = strips_[side].weights;  // a copy, which no store can change
      for (int group = first; group < last; ++group) unpack(weights, side, group, scratch_.weights[group - first][side]);
    }
    settle_memory(&scratch_);
    int block = 0;
    for (; block + 1 < num_blocks_; block += 2) multiply_pair(block, first, last);
    if (block < num_blocks_) multiply_single(block, first, last);
    settle_memory(&scratch_);
  }

  // Inputs pass by the first-level cache, where the weights are to stay.
  RS_INLINE void multiply_pair(int block, int first, int last) {
    auto& sums = scratch_.sums;
    if (first == 0) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
    } else {
      _tile_loadd(4, sums[block][0], 64);
      _tile_loadd(5, sums[block][1], 64);
      _tile_loadd(6, sums[block + 1][0], 64);
      _tile_loadd(7, sums[block + 1][1], 64);
    }
    const uint16_t *upper = inputs(block, first), *lower = inputs(block + 1, first);
    for (int group = 0; group < last - first; ++group, upper += group_halves_, lower += group_halves_) {
      _tile_stream_loadd(0, upper, 64);
      _tile_loadd(2, scratch_.weights[group][0], 64);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, scratch_.weights[group][1], 64);
      _tile_dpbf16ps(5, 0, 3);
      _tile_stream_loadd(1, lower, 64);
      _tile_dpbf16ps(6, 1, 2);
      _tile_dpbf16ps(7, 1, 3);
    }
    _tile_stored(4, sums[block][0], 64);
    _tile_stored(5, sums[block][1], 64);
    _tile_stored(6, sums[block + 1][0], 64);
    _tile_stored(7, sums[block + 1][1], 64);
  }

  RS_INLINE void multiply_single(int block, int first, int last) {
    auto& sums = scratch_.sums[block];
    if (first == 0) {
      _tile_zero(4);
      _tile_zero(5);
    } else {
      _tile_loadd(4, sums[0], 64);
      _tile_loadd(5, sums[1], 64);
    }
    const uint16_t* rows = inputs(block, first);
    for (int group = 0; group < last - first; ++group, rows += group_halves_) {
      _tile_stream_loadd(0, rows, 64);
      _tile_loadd(2, scratch_.weights[group][0], 64);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, scratch_.weights[group][1], 64);
      _tile_dpbf16ps(5, 0, 3);
    }
    _tile_stored(4, sums[0], 64);
    _tile_stored(5, sums[1], 64);
  }

  void write() const {
    const Floats factors[2] = {strips_[0].weights.factors(), strips_[1].weights.factors()};
    for (int row = 0; row < task_.num_rows; ++row)
      for (int side = 0; side < 2; ++side)
        write_outputs(task_, task_.output + task_.output_stride * row, side,
                      load<Floats>(scratch_.sums[row / TILE_ROWS][side][row % TILE_ROWS]) * factors[side]);
  }

  const PanelTask& task_;
  const Rows& rows_;
  TiledScratch& scratch_;
  const Strip<Weights> strips_[2];
  const int num_blocks_;
  const size_t group_halves_;  // from a block's group to its next one
};

// One block of rows, for the strips of one panel or two: weights come from as many places at once, which
// is what it takes to read memory at its speed, and rows are loaded once for all strips. A strip's product
// is made as many turns after its unpacking as there are other strips, when its stores have settled.
template <class Weights, int NUM_TASKS>
class FewRows {
  static constexpr int NUM_STRIPS = 2 * NUM_TASKS;

 public:
  FewRows(const PanelTask* tasks, const Rows& rows) : tasks_(tasks), rows_(rows), scratch_(*reinterpret_cast<TiledScratch*>(tasks->scratch)) {}

  void run() {
    const int num_groups = rows_.num_groups;
    const auto strip_at = [&](int strip) { return Strip<Weights>(tasks_[std::min(strip / 2, NUM_TASKS - 1)], num_groups, strip % 2); };
    const Strip<Weights> strips[4] = {strip_at(0), strip_at(1), strip_at(2), strip_at(3)};
    const uint16_t* inputs = rows_.dense + rows_.place(tasks_->first_row, 0) * GROUP;
    const size_t group_halves = static_cast<size_t>(rows_.block_rows) * GROUP;
    shape_tiles(tasks_->num_rows);
    zero_sums();
    for (int group = 0; group < num_groups; ++group) {
      const size_t place = Weights::STRIDE * static_cast<size_t>(group);
#pragma GCC unroll 4
      for (int strip = 0; strip < NUM_STRIPS; ++strip) {
#pragma GCC unroll 16
        for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(strips[strip].ahead + place + line);
        strips[strip].weights.unpack(strips[strip].groups + place, scratch_.ring[strip]);
        settle_memory(&scratch_);
        if (strip == NUM_STRIPS - 1) {
          _tile_loadd(0, inputs + group_halves * static_cast<size_t>(group), 64);
          multiply(0);
        } else if (group > 0) {
          multiply(strip + 1);
        }
      }
    }
    for (int strip = 1; strip < NUM_STRIPS; ++strip) multiply(strip);
    write(strips);
  }

 private:
  static RS_INLINE void zero_sums() {
    _tile_zero(4);
    _tile_zero(5);
    if constexpr (NUM_TASKS == 2) {
      _tile_zero(6);
      _tile_zero(7);
    }
  }

  RS_INLINE void multiply(int strip) {
    const uint8_t* tile = scratch_.ring[strip];
    switch (strip) {
      case 0: _tile_loadd(2, tile, 64); _tile_dpbf16ps(4, 0, 2); break;
      case 1: _tile_loadd(3, tile, 64); _tile_dpbf16ps(5, 0, 3); break;
      case 2: _tile_loadd(2, tile, 64); _tile_dpbf16ps(6, 0, 2); break;
      case 3: _tile_loadd(3, tile, 64); _tile_dpbf16ps(7, 0, 3); break;
    }
  }

  void write(const Strip<Weights>* strips) {
    _tile_stored(4, scratch_.sums[0][0], 64);
    _tile_stored(5, scratch_.sums[0][1], 64);
    if constexpr (NUM_TASKS == 2) {
      _tile_stored(6, scratch_.sums[1][0], 64);
      _tile_stored(7, scratch_.sums[1][1], 64);
    }
    settle_memory(&scratch_);
    for (int strip = 0; strip < NUM_STRIPS; ++strip) {
      const PanelTask& task = tasks_[strip / 2];
      const Floats factors = strips[strip].weights.factors();
      for (int row = 0; row < task.num_rows; ++row)
        write_outputs(task, task.output + task.output_stride * row, strip % 2,
                      load<Floats>(scratch_.sums[strip / 2][strip % 2][row]) * factors);
    }
  }

  const PanelTask* tasks_;
  const Rows& rows_;
  TiledScratch& scratch_;
};

template <class Weights>
void run_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  if (tasks->num_rows > TILE_ROWS) {
    for (int index = 0; index < num_tasks; ++index) TiledPanel<Weights>(tasks[index], rows).run();
  } else if (num_tasks == 2) {
    FewRows<Weights, 2>(tasks, rows).run();
  } else {
    FewRows<Weights, 1>(tasks, rows).run();
  }
}

void linear_alike(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  const bool is_narrow = tasks->segment->code_bits == 4;
  switch (tasks->segment->scales) {
    case RS_CENTRED_F16: return is_narrow ? run_panels<Unpacker<4, RS_CENTRED_F16>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_CENTRED_F16>>(tasks, num_tasks, rows);
    case RS_AFFINE_F16: return is_narrow ? run_panels<Unpacker<4, RS_AFFINE_F16>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_AFFINE_F16>>(tasks, num_tasks, rows);
    case RS_AFFINE_F32: return is_narrow ? run_panels<Unpacker<4, RS_AFFINE_F32>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_AFFINE_F32>>(tasks, num_tasks, rows);
    default: return run_panels<Copier>(tasks, num_tasks, rows);
  }
}

}  // namespace

void begin_call() { rows_of_linears = 0; }

void linear_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  const rs_segment &first = *tasks[0].segment, &last = *tasks[num_tasks - 1].segment;
  if (first.scales == last.scales && first.code_bits == last.code_bits) return linear_alike(tasks, num_tasks, rows);
  for (int index = 0; index < num_tasks; ++index) linear_alike(tasks + index, 1, rows);
}

}  // namespace RS_LEVEL

#endif
