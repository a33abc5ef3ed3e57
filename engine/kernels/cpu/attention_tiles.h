// Attention's products on AMX tiles.
//
// Scores are computed with keys as rows and up to 16 queries as columns (lanes): a tile of keys is then
// loaded from the cache as it lies there, and the peak and the sum over keys are vertical. The lanes are
// rows of one key head, or, where those are few, of several key heads: each head's queries are then
// zeros in the lanes of the others, and all heads' products add up in the same tile.
#pragma once

#include "attention.h"
#include "tiles.h"

namespace RS_LEVEL {
namespace {

constexpr int STEP = 32;  // keys, or dimensions, that one tile instruction multiplies
constexpr int NUM_STEPS = KEY_TILE / STEP;
constexpr int NUM_GROUPS = KEY_TILE / LANES;
constexpr size_t TILE_WORDS = 16 * 16;
constexpr int UNIT_BLOCKS = 2;

// Where the keys or values of a tile lie: 16 positions after each start, `stride` bytes apart.
struct TileRows {
  const uint8_t* starts[NUM_GROUPS];
  size_t stride;
};

// One or two blocks of up to 16 rows, which are multiplied together, and their part in a tile of keys.
struct Unit {
  int row, count, num_blocks;
  int first_step, end_step;  // the steps of a tile in which any of them sees something
  int first_full, end_full;  // the steps in which all see everything
  Floats peaks[UNIT_BLOCKS], totals[UNIT_BLOCKS];
};

// A task on one thread.
class TaskProducts {
 public:
  TaskProducts(const AttendTask& task, const TaskShape& shape)
      : task_(task), shape_(shape), slots_(task), num_parts_(task.num_heads), part_rows_(num_parts_ > 1 ? shape.head_rows : LANES),
        depth_(shape.size / STEP),
        is_direct_(slots_.format == RS_CACHE_BF16 && shape.size == slots_.head_size && slots_.block_size % LANES == 0), ahead_(task) {
    Pieces pieces(task.scratch);
    const size_t parts = static_cast<size_t>(num_parts_), size = static_cast<size_t>(shape.size);
    const size_t rows = static_cast<size_t>(whole_tile_rows(shape.rows));
    queries_ = pieces.take<uint32_t>(rows * parts * size / 2);
    ends_ = pieces.take<int32_t>(rows);
    scores_ = pieces.take<float>(UNIT_BLOCKS * KEY_TILE * LANES);
    weights_ = pieces.take<uint32_t>(UNIT_BLOCKS * NUM_STEPS * TILE_WORDS);
    products_ = pieces.take<float>(UNIT_BLOCKS * LANES * size);
    for (uint32_t*& values : values_) values = pieces.take<uint32_t>(KEY_TILE / 2 * size);
    raw_values_ = pieces.take<uint16_t>(KEY_TILE * size);
    raw_keys_ = pieces.take<uint16_t>(parts * KEY_TILE * size);
    for (int row = 0; row < shape.rows; row += LANES) load_queries(row);
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) shapes.set(tile, tile < 5 ? 16 : part_rows_, 64);
    shapes.use();
  }
  ~TaskProducts() { _tile_release(); }
  TaskProducts(const TaskProducts&) = delete;
  TaskProducts& operator=(const TaskProducts&) = delete;

  // Adds to the rows' state what they see of a tile. What was just stored is not to be loaded soon, or
  // the loads wait: between a unit's scores, weights and products stand those of the unit before.
  void add_tile(int64_t tile, const State& state) {
    const Span span(task_, tile, 0, task_.num_queries);
    TileRows keys, values;
    locate(tile, span, task_.cache->keys, raw_keys_, keys);
    if (is_direct_) locate(tile, span, task_.cache->values, nullptr, values);
    if (num_parts_ > 1) {
      ahead_.begin_after(task_, tile, num_parts_ * (NUM_STEPS + NUM_GROUPS + depth_ * NUM_STEPS));
      add_tile_of_parts(tile, span, keys, values, state);
      return ahead_.send_rest();
    }
    load_values(tile, span, 0, values);
    Unit unit, before;
    before.num_blocks = 0;
    for (int row = 0; row < shape_.rows; row += UNIT_BLOCKS * LANES, before = unit) {
      unit = unit_of(tile, row);
      if (unit.num_blocks > 0) multiply_unit_by_keys(unit, span, keys);
      if (before.num_blocks > 0) multiply_unit_by_values(before);
      weigh(tile, unit);
      add_products(before, state);
    }
    if (before.num_blocks > 0) multiply_unit_by_values(before);
    add_products(before, state);
  }

  // Pairs of positions are interleaved within quarters of a vector: a step's first 16 sums are the
  // lower halves of each eight dimensions, the others the upper ones.
  RS_INLINE static void put_in_order(Floats& low, Floats& high) {
    const __m512i to_low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i to_high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const __m512 a = (__m512)low, b = (__m512)high;
    low = (Floats)_mm512_permutex2var_ps(a, to_low, b);
    high = (Floats)_mm512_permutex2var_ps(a, to_high, b);
  }

 private:
  void add_tile_of_parts(int64_t tile, const Span& span, const TileRows& keys, TileRows& values, const State& state) {
    Unit unit = unit_of(tile, 0);
    multiply_by_keys(unit, span, keys);
    load_values(tile, span, 0, values);
    weigh(tile, unit);
    for (int part = 0; part < num_parts_; ++part) {
      if (part + 1 < num_parts_) load_values(tile, span, part + 1, values);
      multiply_by_values(unit, part);
    }
    add_products(unit, state);
  }

  uint32_t* query_tile(int row, int part, int step) const {
    return queries_ + static_cast<size_t>((row / LANES * num_parts_ + part) * depth_ + step) * TILE_WORDS;
  }

  // Pairs of dimensions of 16 rows from `row` on, for each part and step. Lanes behind the last row are zeros.
  void load_queries(int row) {
    const int end = shape_.rows - row < LANES ? shape_.rows : row + LANES;
    for (int lane = 0; lane < LANES; ++lane) {
      const int own = row + lane < end ? row + lane : end - 1;
      ends_[row + lane] = own % shape_.head_rows / shape_.group + 1;
    }
    for (int part = 0; part < num_parts_; ++part) {
      memset(products_, 0, sizeof(uint16_t) * static_cast<size_t>(LANES * shape_.size));
      uint16_t* halves = reinterpret_cast<uint16_t*>(products_);
      for (int own = row; own < end; ++own)
        if (num_parts_ == 1 || own / shape_.head_rows == part) load_query(task_, shape_, own, halves + (own - row) * shape_.size);
      for (int step = 0; step < depth_; ++step)
        transpose_words(reinterpret_cast<uint32_t*>(halves) + step * LANES, static_cast<size_t>(shape_.size) / 2, query_tile(row, part, step), LANES);
    }
  }

  // Keys or values of all parts: in the cache itself where its layout allows, else gathered.
  void locate(int64_t tile, const Span& span, const uint8_t* cached, uint16_t* raw, TileRows& rows) const {
    const size_t head_offset = static_cast<size_t>(task_.first_head) * slots_.head_bytes;
    for (const uint8_t*& start : rows.starts) start = cached;  // of groups that no row sees nothing is read
    if (is_direct_) {
      rows.stride = slots_.slot_bytes;
      for (int group = span.first / LANES; group * LANES < span.end; ++group)
        rows.starts[group] = cached + slots_.place(tile + group * LANES) + head_offset;
      return;
    }
    rows.stride = sizeof(uint16_t) * static_cast<size_t>(shape_.size);
    for (int part = 0; part < num_parts_; ++part) {
      const uint8_t* head = cached + head_offset + static_cast<size_t>(part) * slots_.head_bytes;
      gather(slots_, head, tile, span, shape_.size, raw + part * KEY_TILE * shape_.size);
    }
    for (int group = 0; group < NUM_GROUPS; ++group) rows.starts[group] = reinterpret_cast<const uint8_t*>(raw + group * LANES * shape_.size);
  }

  // Bytes from a part's keys or values to those of the next.
  size_t part_bytes() const { return is_direct_ ? slots_.head_bytes : sizeof(uint16_t) * static_cast<size_t>(KEY_TILE * shape_.size); }

  // Rows from `row` on; no blocks where none sees anything of the tile.
  Unit unit_of(int64_t tile, int row) const {
    Unit unit;
    unit.row = row;
    unit.count = shape_.rows - row < UNIT_BLOCKS * LANES ? shape_.rows - row : UNIT_BLOCKS * LANES;
    const int first_query = num_parts_ > 1 ? 0 : row / shape_.group;
    const int last_query = num_parts_ > 1 ? task_.num_queries - 1 : (row + unit.count - 1) / shape_.group;
    const Span low(task_, tile, first_query, first_query + 1), high(task_, tile, last_query, last_query + 1);
    unit.first_step = low.first / STEP;
    unit.end_step = (high.end + STEP - 1) / STEP;
    unit.first_full = (high.first + STEP - 1) / STEP;
    unit.end_full = low.end / STEP;
    unit.num_blocks = unit.first_step >= unit.end_step ? 0 : unit.count > LANES ? 2 : 1;
    return unit;
  }

  // The first and the second 16 positions of a step. Of a group that no row sees nothing is known, and
  // its scores are hidden: any keys will do.
  struct StepRows {
    const uint8_t *even, *odd;

    StepRows(const TileRows& rows, const Span& span, int step)
        : even(rows.starts[span.first < step * STEP + LANES ? 2 * step : 2 * step + 1]),
          odd(rows.starts[span.end > step * STEP + LANES ? 2 * step + 1 : 2 * step]) {}
  };

  // The scores of a block's lanes and the positions of its steps, a row of lanes for each position.
  void multiply_by_keys(const Unit& unit, const Span& span, const TileRows& keys) {
    settle_memory(queries_);
    for (int step = unit.first_step; step < unit.end_step; ++step) {
      StepRows rows(keys, span, step);
      _tile_zero(2);
      _tile_zero(3);
      for (int part = 0; part < num_parts_; ++part, rows.even += part_bytes(), rows.odd += part_bytes()) {
        ahead_.send();
        for (int at = 0; at < depth_; ++at) {
          _tile_loadd(1, query_tile(unit.row, part, at), 64);
          _tile_loadd(0, rows.even + 64 * at, keys.stride);
          _tile_dpbf16ps(2, 0, 1);
          _tile_loadd(4, rows.odd + 64 * at, keys.stride);
          _tile_dpbf16ps(3, 4, 1);
        }
      }
      _tile_stored(2, scores_ + step * STEP * LANES, 64);
      _tile_stored(3, scores_ + (step * STEP + LANES) * LANES, 64);
    }
    settle_memory(scores_);
  }

  // The same for one part's unit of two blocks: what is loaded of the keys serves both.
  void multiply_unit_by_keys(const Unit& unit, const Span& span, const TileRows& keys) {
    settle_memory(queries_);
    const int other = unit.num_blocks > 1 ? unit.row + LANES : unit.row;
    for (int step = unit.first_step; step < unit.end_step; ++step) {
      const StepRows rows(keys, span, step);
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
      for (int at = 0; at < depth_; ++at) {
        _tile_loadd(0, rows.even + 64 * at, keys.stride);
        _tile_loadd(2, query_tile(unit.row, 0, at), 64);
        _tile_dpbf16ps(4, 0, 2);
        _tile_loadd(3, query_tile(other, 0, at), 64);
        _tile_dpbf16ps(5, 0, 3);
        _tile_loadd(1, rows.odd + 64 * at, keys.stride);
        _tile_dpbf16ps(6, 1, 2);
        _tile_dpbf16ps(7, 1, 3);
      }
      float* scores = scores_ + step * STEP * LANES;
      _tile_stored(4, scores, 64);
      _tile_stored(5, scores + KEY_TILE * LANES, 64);
      _tile_stored(6, scores + LANES * LANES, 64);
      _tile_stored(7, scores + (KEY_TILE + LANES) * LANES, 64);
    }
    settle_memory(scores_);
  }

  // Scores of positions that a lane does not see are hidden.
  void hide(int64_t tile, int row, int step, float* scores) const {
    const Ints end = load<Ints>(ends_ + row) + static_cast<int>(task_.first_position - tile);
    const Ints first = end - (task_.heads->window ? task_.heads->window : 1 << 30);
    Ints position = splat(step * STEP);
    for (int key = 0; key < STEP; ++key, position += 1, scores += LANES)
      store(scores, (position >= first) & (position < end) ? load<Floats>(scores) : splat(-__builtin_inff()));
  }

  // Scores become weights, as pairs of bfloat16, a row for each lane and step.
  void weigh(int64_t tile, Unit& unit) {
    for (int block = 0; block < unit.num_blocks; ++block) {
      float* scores = scores_ + block * KEY_TILE * LANES;
      Floats peaks[2] = {splat(NOTHING_YET), splat(NOTHING_YET)}, totals[2] = {};
      for (int step = unit.first_step; step < unit.end_step; ++step) {
        float* own = scores + step * STEP * LANES;
        if (step < unit.first_full || step >= unit.end_full) hide(tile, unit.row + block * LANES, step, own);
        for (int key = 0; key < STEP; key += 2)
          for (int i = 0; i < 2; ++i) peaks[i] = larger(load<Floats>(own + (key + i) * LANES), peaks[i]);
      }
      const Floats peak = larger(peaks[0], peaks[1]);
      for (int step = unit.first_step; step < unit.end_step; ++step) {
        alignas(64) uint32_t pairs[TILE_WORDS];
        const float* own = scores + step * STEP * LANES;
        for (int pair = 0; pair < STEP / 2; ++pair, own += 2 * LANES) {
          const Floats even = power_of_two(load<Floats>(own) - peak), odd = power_of_two(load<Floats>(own + LANES) - peak);
          totals[0] += even;
          totals[1] += odd;
          store(pairs + pair * LANES, ((Words)even + 0x8000) >> 16 | (((Words)odd + 0x8000) & 0xffff0000));
        }
        transpose_words(pairs, LANES, weights_ + static_cast<size_t>(block * NUM_STEPS + step) * TILE_WORDS, LANES);
      }
      unit.peaks[block] = peak;
      unit.totals[block] = totals[0] + totals[1];
    }
    settle_memory(weights_);
  }

  // One part's values in pairs of positions; zeros where no row of the task sees anything.
  void load_values(int64_t tile, const Span& span, int part, TileRows& values) {
    size_t offset = static_cast<size_t>(part) * slots_.head_bytes;
    if (!is_direct_) {
      const uint8_t* cached = task_.cache->values + static_cast<size_t>(task_.first_head + part) * slots_.head_bytes;
      gather(slots_, cached, tile, span, shape_.size, raw_values_);
      values.stride = sizeof(uint16_t) * static_cast<size_t>(shape_.size);
      for (int group = 0; group < NUM_GROUPS; ++group) values.starts[group] = reinterpret_cast<const uint8_t*>(raw_values_ + group * LANES * shape_.size);
      offset = 0;
    }
    for (int group = span.first / STEP * 2; group * LANES < span.end || group % 2 == 1; ++group) {
      const uint8_t* rows = values.starts[group] + offset;
      uint32_t* pairs = values_[part % 2] + group * LANES / 2 * shape_.size;
      ahead_.send();
      if (span.first <= group * LANES && span.end >= (group + 1) * LANES)
        interleave(rows, values.stride, 0, LANES, pairs);
      else
        interleave(rows, values.stride, span.first - group * LANES, span.end - group * LANES, pairs);
    }
    settle_memory(values_);
  }

  // Of 16 rows those in [first, end).
  RS_INLINE void interleave(const uint8_t* rows, size_t stride, int first, int end, uint32_t* pairs) const {
    for (int row = 0; row < LANES; row += 2, rows += 2 * stride)
      for (int at = 0; at < shape_.size; at += STEP, pairs += 2 * LANES) {
        const __m512i low = row >= first && row < end ? load<__m512i>(rows + 2 * at) : __m512i{};
        const __m512i high = row + 1 >= first && row + 1 < end ? load<__m512i>(rows + stride + 2 * at) : __m512i{};
        store(pairs, _mm512_unpacklo_epi16(low, high));
        store(pairs + LANES, _mm512_unpackhi_epi16(low, high));
      }
  }

  // The products of a part's rows of weights with its values.
  void multiply_by_values(const Unit& unit, int part) {
    const int first_row = part * part_rows_;
    const size_t row_bytes = sizeof(uint32_t) * static_cast<size_t>(shape_.size);
    for (int at = 0; at < shape_.size; at += STEP) {
      _tile_zero(5);
      _tile_zero(6);
      for (int step = unit.first_step; step < unit.end_step; ++step) {
        const uint32_t* values = values_[part % 2] + step * (STEP / 2) * shape_.size + at;
        ahead_.send();
        _tile_loadd(7, weights_ + static_cast<size_t>(step) * TILE_WORDS + first_row * LANES, 64);
        _tile_loadd(0, values, row_bytes);
        _tile_dpbf16ps(5, 7, 0);
        _tile_loadd(1, values + LANES, row_bytes);
        _tile_dpbf16ps(6, 7, 1);
      }
      float* products = products_ + first_row * shape_.size + at;
      _tile_stored(5, products, row_bytes);
      _tile_stored(6, products + LANES, row_bytes);
    }
    settle_memory(products_);
  }

  // The same for one part's unit of two blocks.
  void multiply_unit_by_values(const Unit& unit) {
    const size_t row_bytes = sizeof(uint32_t) * static_cast<size_t>(shape_.size);
    const uint32_t* other = weights_ + (unit.num_blocks > 1 ? NUM_STEPS * TILE_WORDS : 0);
    for (int at = 0; at < shape_.size; at += STEP) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
      for (int step = unit.first_step; step < unit.end_step; ++step) {
        const uint32_t* values = values_[0] + step * (STEP / 2) * shape_.size + at;
        _tile_loadd(0, weights_ + static_cast<size_t>(step) * TILE_WORDS, 64);
        _tile_loadd(2, values, row_bytes);
        _tile_dpbf16ps(4, 0, 2);
        _tile_loadd(3, values + LANES, row_bytes);
        _tile_dpbf16ps(5, 0, 3);
        _tile_loadd(1, other + static_cast<size_t>(step) * TILE_WORDS, 64);
        _tile_dpbf16ps(6, 1, 2);
        _tile_dpbf16ps(7, 1, 3);
      }
      float* products = products_ + at;
      _tile_stored(4, products, row_bytes);
      _tile_stored(5, products + LANES, row_bytes);
      _tile_stored(6, products + LANES * shape_.size, row_bytes);
      _tile_stored(7, products + LANES * shape_.size + LANES, row_bytes);
    }
    settle_memory(products_);
  }

  void add_products(const Unit& unit, const State& state) const {
    for (int block = 0; block < unit.num_blocks; ++block) {
      const int row = unit.row + block * LANES, count = unit.count - block * LANES < LANES ? unit.count - block * LANES : LANES;
      const Factors factors(state, row, count, unit.peaks[block], unit.totals[block]);
      const float* products = products_ + block * LANES * shape_.size;
      for (int r = 0; r < count; ++r) factors.apply(r, state.sums + (row + r) * shape_.size, products + r * shape_.size, shape_.size);
    }
  }

  const AttendTask& task_;
  const TaskShape& shape_;
  const Slots slots_;
  const int num_parts_, part_rows_;  // key heads that share a block's lanes, and the lanes of each
  const int depth_;                  // steps of a head's dimensions
  const bool is_direct_;             // tiles are loaded from the cache itself
  Ahead ahead_;
  uint32_t* queries_;                // tiles of pairs of dimensions: 16 pairs of 16 lanes
  int32_t* ends_;                    // [rows] position behind the row's own, counted from the first query's
  float* scores_;                    // [UNIT_BLOCKS, KEY_TILE, 16]
  uint32_t* weights_;                // tiles of pairs of positions: 16 lanes of 16 pairs
  float* products_;                  // [UNIT_BLOCKS * 16, D]
  uint32_t* values_[2];              // [KEY_TILE / 2, D], in the order of `put_in_order`; parts take turns
  uint16_t* raw_values_;             // [KEY_TILE, D], where they are gathered
  uint16_t* raw_keys_;               // [parts, KEY_TILE, D]
};

}  // namespace
}  // namespace RS_LEVEL
