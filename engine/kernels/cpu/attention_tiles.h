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

// Up to 16 rows of a task, and the positions of a tile that each sees.
struct LaneBlock {
  int row, count;
  int first_step, end_step;  // the steps of a tile in which any of them sees something
  int first_full, end_full;  // the steps in which all see everything
  Ints first, end;           // of each lane, counted from the tile's start
};

// Where the keys or values of a tile lie: 16 positions after each start, `stride` bytes apart.
struct TileRows {
  const uint8_t* starts[NUM_GROUPS];
  size_t stride;
};

// A task on one thread.
class TaskProducts {
 public:
  TaskProducts(const AttendTask& task, const TaskShape& shape)
      : task_(task), shape_(shape), slots_(task), num_parts_(task.num_heads), part_rows_(num_parts_ > 1 ? shape.head_rows : LANES),
        depth_(shape.size / STEP),
        is_direct_(slots_.format == RS_CACHE_BF16 && shape.size == slots_.head_size && slots_.block_size % LANES == 0) {
    Pieces pieces(task.scratch);
    const size_t parts = static_cast<size_t>(num_parts_), size = static_cast<size_t>(shape.size);
    const size_t blocks = static_cast<size_t>((shape.rows + LANES - 1) / LANES);
    queries_ = pieces.take<uint32_t>(blocks * parts * static_cast<size_t>(depth_) * TILE_WORDS);
    scores_ = pieces.take<float>(KEY_TILE * LANES);
    weights_ = pieces.take<uint32_t>(NUM_STEPS * TILE_WORDS);
    values_ = pieces.take<uint32_t>(KEY_TILE / 2 * size);
    products_ = pieces.take<float>(LANES * size);
    raw_values_ = pieces.take<uint16_t>(KEY_TILE * size);
    raw_keys_ = pieces.take<uint16_t>(parts * KEY_TILE * size);
    for (int row = 0; row < shape.rows; row += LANES) load_queries(row);
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) shapes.set(tile, tile < 4 ? 16 : part_rows_, 64);
    shapes.use();
  }
  ~TaskProducts() { _tile_release(); }
  TaskProducts(const TaskProducts&) = delete;
  TaskProducts& operator=(const TaskProducts&) = delete;

  // Adds to the rows' state what they see of a tile.
  void add_tile(int64_t tile, const State& state) {
    const Span span(task_, tile, 0, task_.num_queries);
    TileRows keys, values;
    locate(tile, span, task_.cache->keys, raw_keys_, keys);
    if (is_direct_) locate(tile, span, task_.cache->values, nullptr, values);
    if (num_parts_ == 1) load_values(tile, span, 0, values);
    for (int row = 0; row < shape_.rows; row += LANES) {
      const LaneBlock block = lane_block(tile, row);
      if (block.first_step >= block.end_step) continue;
      multiply_by_keys(block, span, keys);
      const Floats peaks = hide_and_find_peaks(block);
      const Floats totals = weigh(block, peaks);
      for (int part = 0; part < num_parts_; ++part) {
        if (num_parts_ > 1) load_values(tile, span, part, values);
        multiply_by_values(block, part);
      }
      const Factors factors(state, row, block.count, peaks, totals);
      settle_memory(products_);
      for (int r = 0; r < block.count; ++r)
        factors.apply(r, state.sums + (row + r) * shape_.size, products_ + r * shape_.size, shape_.size);
    }
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
  uint32_t* query_tile(int row, int part, int step) const {
    return queries_ + static_cast<size_t>((row / LANES * num_parts_ + part) * depth_ + step) * TILE_WORDS;
  }

  // Pairs of dimensions of 16 rows from `row` on, for each part and step.
  void load_queries(int row) {
    const int end = shape_.rows - row < LANES ? shape_.rows : row + LANES;
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
      gather(slots_, head, head, tile, span, shape_.size, raw + part * KEY_TILE * shape_.size);
    }
    for (int group = 0; group < NUM_GROUPS; ++group) rows.starts[group] = reinterpret_cast<const uint8_t*>(raw + group * LANES * shape_.size);
  }

  // Bytes from a part's keys or values to those of the next.
  size_t part_bytes() const { return is_direct_ ? slots_.head_bytes : sizeof(uint16_t) * static_cast<size_t>(KEY_TILE * shape_.size); }

  LaneBlock lane_block(int64_t tile, int row) const {
    LaneBlock block;
    block.row = row;
    block.count = shape_.rows - row < LANES ? shape_.rows - row : LANES;
    int lowest_first = KEY_TILE, highest_first = 0, lowest_end = KEY_TILE, highest_end = 0;
    for (int lane = 0; lane < LANES; ++lane) {
      const int own = row + (lane < block.count ? lane : 0), query = own % shape_.head_rows / shape_.group;
      const Span span(task_, tile, query, query + 1);
      block.first[lane] = span.first;
      block.end[lane] = span.end;
      lowest_first = span.first < lowest_first ? span.first : lowest_first;
      highest_first = span.first > highest_first ? span.first : highest_first;
      lowest_end = span.end < lowest_end ? span.end : lowest_end;
      highest_end = span.end > highest_end ? span.end : highest_end;
    }
    block.first_step = lowest_first / STEP;
    block.end_step = (highest_end + STEP - 1) / STEP;
    block.first_full = (highest_first + STEP - 1) / STEP;
    block.end_full = lowest_end / STEP;
    return block;
  }

  // The scores of a block's lanes and the positions of its steps, a row of lanes for each position.
  void multiply_by_keys(const LaneBlock& block, const Span& span, const TileRows& keys) {
    settle_memory(queries_);
    for (int step = block.first_step; step < block.end_step; ++step) {
      // Of a group that no row sees nothing is known, and its scores are hidden: any keys will do.
      const uint8_t* even = keys.starts[span.first < step * STEP + LANES ? 2 * step : 2 * step + 1];
      const uint8_t* odd = keys.starts[span.end > step * STEP + LANES ? 2 * step + 1 : 2 * step];
      _tile_zero(2);
      _tile_zero(3);
      for (int part = 0; part < num_parts_; ++part, even += part_bytes(), odd += part_bytes())
        for (int at = 0; at < depth_; ++at) {
          _tile_loadd(1, query_tile(block.row, part, at), 64);
          _tile_loadd(0, even + 64 * at, keys.stride);
          _tile_dpbf16ps(2, 0, 1);
          _tile_loadd(0, odd + 64 * at, keys.stride);
          _tile_dpbf16ps(3, 0, 1);
        }
      _tile_stored(2, scores_ + step * STEP * LANES, 64);
      _tile_stored(3, scores_ + (step * STEP + LANES) * LANES, 64);
    }
    settle_memory(scores_);
  }

  // The highest score of each lane; scores of positions that a lane does not see are hidden.
  Floats hide_and_find_peaks(const LaneBlock& block) {
    Floats peaks[2] = {splat(NOTHING_YET), splat(NOTHING_YET)};
    for (int step = block.first_step; step < block.end_step; ++step) {
      float* scores = scores_ + step * STEP * LANES;
      if (step < block.first_full || step >= block.end_full) {
        Ints position = splat(step * STEP);
        for (int key = 0; key < STEP; ++key, position += 1) {
          const Floats own = load<Floats>(scores + key * LANES);
          store(scores + key * LANES, (position >= block.first) & (position < block.end) ? own : splat(-__builtin_inff()));
        }
      }
      for (int key = 0; key < STEP; key += 2)
        for (int i = 0; i < 2; ++i) peaks[i] = larger(load<Floats>(scores + (key + i) * LANES), peaks[i]);
    }
    return larger(peaks[0], peaks[1]);
  }

  // Scores become weights, as pairs of bfloat16, a row for each lane and step; returns their sums.
  Floats weigh(const LaneBlock& block, const Floats& peaks) {
    Floats totals[2] = {};
    for (int step = block.first_step; step < block.end_step; ++step) {
      alignas(64) uint32_t pairs[TILE_WORDS];
      const float* scores = scores_ + step * STEP * LANES;
      for (int pair = 0; pair < STEP / 2; ++pair, scores += 2 * LANES) {
        const Floats even = power_of_two(load<Floats>(scores) - peaks), odd = power_of_two(load<Floats>(scores + LANES) - peaks);
        totals[0] += even;
        totals[1] += odd;
        store(pairs + pair * LANES, ((Words)even + 0x8000) >> 16 | (((Words)odd + 0x8000) & 0xffff0000));
      }
      transpose_words(pairs, LANES, weights_ + static_cast<size_t>(step) * TILE_WORDS, LANES);
    }
    settle_memory(weights_);
    return totals[0] + totals[1];
  }

  // One part's values in pairs of positions; zeros where no row of the task sees anything.
  void load_values(int64_t tile, const Span& span, int part, TileRows& values) {
    const uint8_t* cached = task_.cache->values + static_cast<size_t>(task_.first_head + part) * slots_.head_bytes;
    size_t offset = static_cast<size_t>(part) * slots_.head_bytes;
    if (!is_direct_) {
      gather(slots_, cached, cached, tile, span, shape_.size, raw_values_);
      values.stride = sizeof(uint16_t) * static_cast<size_t>(shape_.size);
      for (int group = 0; group < NUM_GROUPS; ++group) values.starts[group] = reinterpret_cast<const uint8_t*>(raw_values_ + group * LANES * shape_.size);
      offset = 0;
    }
    for (int key = span.first / STEP * STEP; key < span.end; key += 2) {
      const uint8_t* even = values.starts[key / LANES] + offset + static_cast<size_t>(key % LANES) * values.stride;
      uint32_t* pairs = values_ + key / 2 * shape_.size;
      const bool has_even = key >= span.first && key < span.end, has_odd = key + 1 >= span.first && key + 1 < span.end;
      for (int at = 0; at < shape_.size; at += STEP) {
        const __m512i low = has_even ? load<__m512i>(even + 2 * at) : __m512i{};
        const __m512i high = has_odd ? load<__m512i>(even + values.stride + 2 * at) : __m512i{};
        store(pairs + at, _mm512_unpacklo_epi16(low, high));
        store(pairs + at + LANES, _mm512_unpackhi_epi16(low, high));
      }
    }
    for (int key = span.end + span.end % 2; key % STEP != 0; key += 2) memset(values_ + key / 2 * shape_.size, 0, sizeof(uint32_t) * static_cast<size_t>(shape_.size));
    settle_memory(values_);
  }

  // The products of a part's rows of weights with its values.
  void multiply_by_values(const LaneBlock& block, int part) {
    const int first_row = num_parts_ > 1 ? part * part_rows_ : 0;
    const size_t row_bytes = sizeof(uint32_t) * static_cast<size_t>(shape_.size);
    for (int at = 0; at < shape_.size; at += STEP) {
      _tile_zero(4);
      _tile_zero(5);
      for (int step = block.first_step; step < block.end_step; ++step) {
        const uint32_t* values = values_ + step * (STEP / 2) * shape_.size + at;
        _tile_loadd(6, weights_ + static_cast<size_t>(step) * TILE_WORDS + first_row * LANES, 64);
        _tile_loadd(0, values, row_bytes);
        _tile_dpbf16ps(4, 6, 0);
        _tile_loadd(1, values + LANES, row_bytes);
        _tile_dpbf16ps(5, 6, 1);
      }
      float* products = products_ + first_row * shape_.size + at;
      _tile_stored(4, products, row_bytes);
      _tile_stored(5, products + LANES, row_bytes);
    }
  }

  const AttendTask& task_;
  const TaskShape& shape_;
  const Slots slots_;
  const int num_parts_, part_rows_;  // key heads that share a block's lanes, and the lanes of each
  const int depth_;                  // steps of a head's dimensions
  const bool is_direct_;             // tiles are loaded from the cache itself
  uint32_t* queries_;    // tiles of pairs of dimensions: 16 pairs of 16 lanes
  float* scores_;        // [KEY_TILE, 16]
  uint32_t* weights_;    // tiles of pairs of positions: 16 lanes of 16 pairs
  uint32_t* values_;     // [KEY_TILE / 2, D], in the order of `put_in_order`
  float* products_;      // [16, D]
  uint16_t* raw_values_; // [KEY_TILE, D], where they are gathered
  uint16_t* raw_keys_;   // [parts, KEY_TILE, D]
};

}  // namespace
}  // namespace RS_LEVEL
