// Attention's products on vectors: up to four rows by a tile's keys, and their weights by its values.
#pragma once

#include "attention.h"

namespace RS_LEVEL {
namespace {

constexpr int BLOCK_ROWS = 4;
constexpr int VECTORS = KEY_TILE / LANES;
constexpr int PART_VECTORS = 4;  // vectors of keys or dimensions taken at once

// A task on one thread.
class TaskProducts {
 public:
  TaskProducts(const AttendTask& task, const TaskShape& shape) : task_(task), shape_(shape), slots_(task), ahead_(task) {
    Pieces pieces(task.scratch);
    const size_t rows = static_cast<size_t>(shape.rows), size = static_cast<size_t>(shape.size);
    queries_ = pieces.take<uint32_t>(rows * size / 2);
    keys_ = pieces.take<uint32_t>(KEY_TILE * size / 2);
    values_ = pieces.take<uint32_t>(KEY_TILE * size / 2);
    products_ = pieces.take<float>(BLOCK_ROWS * size);
    raw_ = pieces.take<uint16_t>(KEY_TILE * size);
    for (int row = 0; row < shape.rows; ++row) load_query(task, shape, row, reinterpret_cast<uint16_t*>(queries_) + row * shape.size);
  }

  // Adds to the rows' state what they see of a tile.
  void add_tile(int64_t tile, const State& state) {
    const Span span(task_, tile, 0, task_.num_queries);
    ahead_.begin_after(task_, tile, task_.num_heads * (2 + (shape_.head_rows + BLOCK_ROWS - 1) / BLOCK_ROWS));
    for (int head = 0; head < task_.num_heads; ++head) {
      const size_t offset = static_cast<size_t>(task_.first_head + head) * slots_.head_bytes;
      ahead_.send();
      gather(slots_, task_.cache->keys + offset, tile, span, shape_.size, raw_);
      load_keys();
      ahead_.send();
      gather(slots_, task_.cache->values + offset, tile, span, shape_.size, raw_);
      load_values();
      for (int row = 0; row < shape_.head_rows; row += BLOCK_ROWS) {
        const int count = shape_.head_rows - row < BLOCK_ROWS ? shape_.head_rows - row : BLOCK_ROWS;
        ahead_.send();
        if (task_.first_position + (row + count - 1) / shape_.group >= tile) add_rows(tile, head * shape_.head_rows + row, count, state);
      }
    }
  }

  // Where the state's sums are in another order than the head's dimensions: not here.
  RS_INLINE static void put_in_order(Floats&, Floats&) {}

 private:
  void load_keys() {
    const size_t pairs = static_cast<size_t>(shape_.size) / 2;
    const uint32_t* raw = reinterpret_cast<const uint32_t*>(raw_);
    for (size_t key = 0; key < KEY_TILE; key += LANES)
      for (size_t pair = 0; pair < pairs; pair += LANES) transpose_words(raw + key * pairs + pair, pairs, keys_ + pair * KEY_TILE + key, KEY_TILE);
  }

  void load_values() {
    const int size = shape_.size;
    for (int pair = 0; pair < KEY_TILE / 2; ++pair) {
      const uint16_t* even = raw_ + 2 * pair * size;
      for (int at = 0; at < size; at += LANES) {
        const Words low = __builtin_convertvector(load<Halves>(even + at), Words);
        const Words high = __builtin_convertvector(load<Halves>(even + size + at), Words);
        store(values_ + pair * size + at, low | high << 16);
      }
    }
  }

  template <int ROWS>
  RS_INLINE void multiply_by_keys(int row, float (*output)[KEY_TILE]) const {
    for (int key = 0; key < KEY_TILE; key += PART_VECTORS * LANES) {
      Floats scores[ROWS][PART_VECTORS] = {};
      for (int pair = 0; pair < shape_.size / 2; ++pair) {
        Words keys[PART_VECTORS];
        for (int v = 0; v < PART_VECTORS; ++v) keys[v] = load<Words>(keys_ + pair * KEY_TILE + key + v * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
          const Words query = splat_word(queries_ + (row + r) * (shape_.size / 2) + pair);
#pragma GCC unroll 4
          for (int v = 0; v < PART_VECTORS; ++v) scores[r][v] = dot_pairs(scores[r][v], keys[v], query);
        }
      }
      for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < PART_VECTORS; ++v) store(output[r] + key + v * LANES, scores[r][v]);
    }
  }

  // 64 (or the last 32) dimensions at a time.
  template <int ROWS, int WIDTH>
  RS_INLINE void multiply_by_values(int at, const uint32_t (*weights)[KEY_TILE / 2], float* products) const {
    Floats sums[ROWS][WIDTH] = {};
    for (int pair = 0; pair < KEY_TILE / 2; ++pair) {
      Words values[WIDTH];
      for (int v = 0; v < WIDTH; ++v) values[v] = load<Words>(values_ + pair * shape_.size + at + v * LANES);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const Words weight = splat_word(weights[r] + pair);
#pragma GCC unroll 4
        for (int v = 0; v < WIDTH; ++v) sums[r][v] = dot_pairs(sums[r][v], values[v], weight);
      }
    }
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < WIDTH; ++v) store(products + r * shape_.size + at + v * LANES, sums[r][v]);
  }

  // Hides the scores outside [first, end); returns the highest of the others.
  RS_INLINE float highest(float* scores, const Span& span) const {
    Floats peaks = splat(NOTHING_YET);
    Ints position = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int v = 0; v < VECTORS; ++v, position += LANES) {
      Floats own = load<Floats>(scores + v * LANES);
      if (span.first > 0 || span.end < KEY_TILE) {
        own = (position >= span.first) & (position < span.end) ? own : splat(-__builtin_inff());
        store(scores + v * LANES, own);
      }
      peaks = larger(own, peaks);
    }
    return largest(peaks);
  }

  // A row's scores become weights, as bfloat16 pairs; returns their sum.
  RS_INLINE float weigh(const float* scores, float peak, uint32_t* weights) const {
    Floats totals = {};
    for (int v = 0; v < VECTORS; ++v) {
      const Floats own = power_of_two(load<Floats>(scores + v * LANES) - splat(peak));
      store(weights + v * LANES / 2, to_bfloat16(own));
      totals += own;
    }
    return sum_of(totals);
  }

  template <int ROWS>
  void add_rows_of(int64_t tile, int row, const State& state) const {
    alignas(64) float scores[ROWS][KEY_TILE];
    alignas(64) uint32_t weights[ROWS][KEY_TILE / 2];
    alignas(64) float peaks[LANES] = {}, totals[LANES] = {};
    multiply_by_keys<ROWS>(row, scores);
    for (int r = 0; r < ROWS; ++r) {
      const int query = (row + r) % shape_.head_rows / shape_.group;
      peaks[r] = highest(scores[r], Span(task_, tile, query, query + 1));
      totals[r] = weigh(scores[r], peaks[r], weights[r]);
    }
    const Factors factors(state, row, ROWS, load<Floats>(peaks), load<Floats>(totals));
    int at = 0;
    for (; at + 64 <= shape_.size; at += 64) multiply_by_values<ROWS, 4>(at, weights, products_);
    if (at < shape_.size) multiply_by_values<ROWS, 2>(at, weights, products_);
    for (int r = 0; r < ROWS; ++r) factors.apply(r, state.sums + (row + r) * shape_.size, products_ + r * shape_.size, shape_.size);
  }

  void add_rows(int64_t tile, int row, int count, const State& state) const {
    switch (count) {
      case 1: return add_rows_of<1>(tile, row, state);
      case 2: return add_rows_of<2>(tile, row, state);
      case 3: return add_rows_of<3>(tile, row, state);
      default: return add_rows_of<4>(tile, row, state);
    }
  }

  const AttendTask& task_;
  const TaskShape& shape_;
  const Slots slots_;
  Ahead ahead_;
  uint32_t* queries_;  // [rows, D / 2] pairs of bfloat16, scaled
  uint32_t* keys_;     // [D / 2, KEY_TILE]: pairs of dimensions of each key
  uint32_t* values_;   // [KEY_TILE / 2, D]: each dimension of pairs of positions
  float* products_;    // [BLOCK_ROWS, D]
  uint16_t* raw_;      // [KEY_TILE, D]
};

}  // namespace
}  // namespace RS_LEVEL
