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
constexpr int MAX_SPAN = 18;
constexpr int FEW_BLOCKS = 8, SPAN_OF_FEW = 8;
constexpr int RING = 4;  // a tile for each strip: 4096 bytes, beyond which stores are mistaken for one another

typedef float TileSums[2][TILE_ROWS][TILE_OUTPUTS];  // of a block of rows, for both of a panel's tiles

struct alignas(64) TiledScratch {
  uint8_t ring[RING][TILE_BYTES];
  uint8_t weights[MAX_SPAN][2][TILE_BYTES];
  TileSums sums[MAX_PANELS_AT_ONCE][MAX_TILED_ROWS / TILE_ROWS];
};
static_assert(sizeof(TiledScratch) <= PANEL_SCRATCH_BYTES);

TiledScratch& scratch_of(const PanelTask& task) { return *reinterpret_cast<TiledScratch*>(task.scratch); }

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

// What a panel's sums are to be multiplied with to be outputs.
struct PanelFactors {
  Floats sides[2];
};

template <class Weights>
PanelFactors factors_of(const PanelTask& task, int num_groups) {
  return {{Strip<Weights>(task, num_groups, 0).weights.factors(), Strip<Weights>(task, num_groups, 1).weights.factors()}};
}

// What becomes of the sums of a row, counted from the task's first. These are left as they are.
struct Kept {
  RS_INLINE void put(int, const Floats&, const Floats&) const {}
};

struct Outputs {
  const PanelTask& task;
  const PanelFactors factors;

  RS_INLINE void put(int row, const Floats& left, const Floats& right) const {
    float* output = task.output + task.output_stride * row;
    write_outputs(task, output, 0, left * factors.sides[0]);
    write_outputs(task, output, 1, right * factors.sides[1]);
  }
};

// The sums of `up`, where the gate's are there already.
struct GatedInputs {
  const PanelTask &gate, &up;
  const PanelFactors gate_factors, up_factors;
  const TileSums* gate_sums;
  const Rows& gated;

  RS_INLINE void put(int row, const Floats& left, const Floats& right) const {
    const TileSums& own = gate_sums[row / TILE_ROWS];
    store_inputs(gated.dense + gated.place(up.first_row + row, up.panel) * GROUP, value(0, own[0][row % TILE_ROWS], left),
                 value(1, own[1][row % TILE_ROWS], right));
  }

 private:
  RS_INLINE Floats value(int side, const float* gate_sum, const Floats& up_sum) const {
    return silu(with_bias(gate, side, load<Floats>(gate_sum) * gate_factors.sides[side])) * with_bias(up, side, up_sum * up_factors.sides[side]);
  }
};

template <class Weights>
class TiledPanel {
 public:
  TiledPanel(const PanelTask& task, const Rows& rows, TileSums* sums)
      : task_(task), rows_(rows), sums_(sums), scratch_(scratch_of(task)),
        strips_{{task, rows.num_groups, 0}, {task, rows.num_groups, 1}},
        num_blocks_((task.num_rows + TILE_ROWS - 1) / TILE_ROWS), group_halves_(static_cast<size_t>(rows.block_rows) * GROUP) {}

  template <class Ending>
  void run(const Ending& ending) {
    shape_tiles(TILE_ROWS);
    const int span = num_blocks_ < FEW_BLOCKS ? SPAN_OF_FEW : MAX_SPAN;
    const int num_spans = (rows_.num_groups + span - 1) / span;
    const auto bound = [&](int index) { return rows_.num_groups * index / num_spans; };
    for (int index = 0; index + 1 < num_spans; ++index) multiply_span(bound(index), bound(index + 1), Kept{});
    multiply_span(bound(num_spans - 1), rows_.num_groups, ending);
  }

 private:
  // Ends the rows of some blocks, a few at a time while the next blocks are multiplied.
  template <class Ending>
  struct Finishing {
    const Ending& ending;
    const TileSums* sums;
    int rows_at_once;
    int row = 0, end = 0;

    RS_INLINE void put_some() { put(row + rows_at_once < end ? row + rows_at_once : end); }
    void put_rest() { put(end); }

    RS_INLINE void put(int last) {
      for (; row < last; ++row) {
        const TileSums& own = sums[row / TILE_ROWS];
        ending.put(row, load<Floats>(own[0][row % TILE_ROWS]), load<Floats>(own[1][row % TILE_ROWS]));
      }
    }
  };

  const uint16_t* inputs(int block, int group) const { return rows_.dense + rows_.place(task_.first_row + block * TILE_ROWS, group) * GROUP; }

  RS_INLINE void unpack(const Weights& weights, int side, int group, uint8_t* tile) const {
    const uint8_t* packed = strips_[side].groups + Weights::STRIDE * static_cast<size_t>(group);
    for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(packed + PREFETCH_BYTES + line);
    weights.unpack(packed, tile);
  }

  template <class Ending>
  void multiply_span(int first, int last, const Ending& ending) {
    for (int side = 0; side < 2; ++side) {
      const Weights weights = strips_[side].weights;  // a copy, which no store can change
      for (int group = first; group < last; ++group) unpack(weights, side, group, scratch_.weights[group - first][side]);
    }
    settle_memory(&scratch_);
    Finishing<Ending> finishing{ending, sums_, (2 * TILE_ROWS + last - first - 1) / (last - first)};
    if (num_blocks_ > 1) load_pair(0, first);
    for (int block = 0; block < num_blocks_; block += 2) {
      if (block + 1 < num_blocks_)
        multiply_pair(block, first, last, finishing);
      else
        multiply_single(block, first, last);
      finishing.put_rest();
      settle_memory(&scratch_);
      finishing.end = std::min(task_.num_rows, (block + 2) * TILE_ROWS);
    }
    finishing.put_rest();
  }

  // Inputs pass by the first-level cache, where the weights are to stay.
  RS_INLINE void load_pair(int block, int group) const {
    _tile_stream_loadd(0, inputs(block, group), 64);
    _tile_loadd(2, scratch_.weights[0][0], 64);
    _tile_stream_loadd(1, inputs(block + 1, group), 64);
    _tile_loadd(3, scratch_.weights[0][1], 64);
  }

  // The products of what is loaded. Meanwhile the tiles are loaded that come next, in the order in which they are free.
  RS_INLINE void multiply_loaded(const uint16_t* next_upper, const uint16_t* next_lower, int next_group) const {
    _tile_dpbf16ps(4, 0, 2);
    _tile_dpbf16ps(5, 0, 3);
    _tile_stream_loadd(0, next_upper, 64);
    _tile_dpbf16ps(6, 1, 2);
    _tile_loadd(2, scratch_.weights[next_group][0], 64);
    _tile_dpbf16ps(7, 1, 3);
    _tile_stream_loadd(1, next_lower, 64);
    _tile_loadd(3, scratch_.weights[next_group][1], 64);
  }

  template <class Ending>
  RS_INLINE void multiply_pair(int block, int first, int last, Finishing<Ending>& finishing) {
    if (first == 0) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
    } else {
      _tile_loadd(4, sums_[block][0], 64);
      _tile_loadd(5, sums_[block][1], 64);
      _tile_loadd(6, sums_[block + 1][0], 64);
      _tile_loadd(7, sums_[block + 1][1], 64);
    }
    const uint16_t *upper = inputs(block, first), *lower = inputs(block + 1, first);
    for (int next = 1; next < last - first; ++next) {
      upper += group_halves_;
      lower += group_halves_;
      multiply_loaded(upper, lower, next);
      finishing.put_some();
    }
    const int next_block = block + 3 < num_blocks_ ? block + 2 : block;
    multiply_loaded(inputs(next_block, first), inputs(next_block + 1, first), 0);
    _tile_stored(4, sums_[block][0], 64);
    _tile_stored(5, sums_[block][1], 64);
    _tile_stored(6, sums_[block + 1][0], 64);
    _tile_stored(7, sums_[block + 1][1], 64);
  }

  RS_INLINE void multiply_single(int block, int first, int last) {
    TileSums& sums = sums_[block];
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

  const PanelTask& task_;
  const Rows& rows_;
  TileSums* const sums_;
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
  // A task's sums go to the first block of its own.
  FewRows(const PanelTask* tasks, const Rows& rows, TileSums* first_sums, TileSums* second_sums)
      : tasks_(tasks), rows_(rows), sums_{first_sums, second_sums}, scratch_(scratch_of(*tasks)) {}

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
    store_sums();
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

  void store_sums() {
    _tile_stored(4, sums_[0][0][0], 64);
    _tile_stored(5, sums_[0][0][1], 64);
    if constexpr (NUM_TASKS == 2) {
      _tile_stored(6, sums_[1][0][0], 64);
      _tile_stored(7, sums_[1][0][1], 64);
    }
    settle_memory(&scratch_);
  }

  const PanelTask* tasks_;
  const Rows& rows_;
  TileSums* const sums_[2];
  TiledScratch& scratch_;
};

template <class Ending>
void end_block(const PanelTask& task, const TileSums& sums, const Ending& ending) {
  for (int row = 0; row < task.num_rows; ++row) ending.put(row, load<Floats>(sums[0][row]), load<Floats>(sums[1][row]));
}

template <class Weights>
void run_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  TiledScratch& scratch = scratch_of(*tasks);
  TileSums* const sums[2] = {scratch.sums[0], scratch.sums[1]};
  const auto outputs = [&](const PanelTask& task) { return Outputs{task, factors_of<Weights>(task, rows.num_groups)}; };
  if (tasks->num_rows > TILE_ROWS) {
    for (int index = 0; index < num_tasks; ++index) TiledPanel<Weights>(tasks[index], rows, sums[0]).run(outputs(tasks[index]));
    return;
  }
  if (num_tasks == 2)
    FewRows<Weights, 2>(tasks, rows, sums[0], sums[1]).run();
  else
    FewRows<Weights, 1>(tasks, rows, sums[0], nullptr).run();
  for (int index = 0; index < num_tasks; ++index) end_block(tasks[index], *sums[index], outputs(tasks[index]));
}

// Calls `body` with the class that unpacks a segment's weights.
template <class Body>
void with_weights(const rs_segment& segment, const Body& body) {
  const auto of_bits = [&]<int SCALES> {
    if (segment.code_bits == 4) body.template operator()<Unpacker<4, SCALES>>();
    else body.template operator()<Unpacker<8, SCALES>>();
  };
  switch (segment.scales) {
    case RS_CENTRED_F16: return of_bits.template operator()<RS_CENTRED_F16>();
    case RS_AFFINE_F16: return of_bits.template operator()<RS_AFFINE_F16>();
    case RS_AFFINE_F32: return of_bits.template operator()<RS_AFFINE_F32>();
    default: return body.template operator()<Copier>();
  }
}

bool are_alike(const rs_segment& a, const rs_segment& b) { return a.scales == b.scales && a.code_bits == b.code_bits; }

}  // namespace

void begin_call() { rows_of_linears = 0; }

void linear_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  const bool is_one_call = are_alike(*tasks[0].segment, *tasks[num_tasks - 1].segment);
  for (int index = 0; index < num_tasks; index += is_one_call ? num_tasks : 1)
    with_weights(*tasks[index].segment, [&]<class Weights> { run_panels<Weights>(tasks + index, is_one_call ? num_tasks : 1, rows); });
}

void gated_panel(const PanelTask& gate, const PanelTask& up, const Rows& rows, const Rows& gated) {
  TiledScratch& scratch = scratch_of(gate);
  TileSums *const gate_sums = scratch.sums[0], *const up_sums = scratch.sums[1];
  const bool are_few = gate.num_rows <= TILE_ROWS, are_made_together = are_few && are_alike(*gate.segment, *up.segment);
  PanelFactors gate_factors;
  with_weights(*gate.segment, [&]<class Weights> {
    gate_factors = factors_of<Weights>(gate, rows.num_groups);
    const PanelTask tasks[2] = {gate, up};
    if (are_made_together)
      FewRows<Weights, 2>(tasks, rows, gate_sums, up_sums).run();
    else if (are_few)
      FewRows<Weights, 1>(&gate, rows, gate_sums, nullptr).run();
    else
      TiledPanel<Weights>(gate, rows, gate_sums).run(Kept{});
  });
  with_weights(*up.segment, [&]<class Weights> {
    const GatedInputs inputs{gate, up, gate_factors, factors_of<Weights>(up, rows.num_groups), gate_sums, gated};
    if (!are_few) return TiledPanel<Weights>(up, rows, up_sums).run(inputs);
    if (!are_made_together) FewRows<Weights, 1>(&up, rows, up_sums, nullptr).run();
    end_block(up, *up_sums, inputs);
  });
}

}  // namespace RS_LEVEL

#endif
