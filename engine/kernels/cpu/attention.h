// The two products of attention, for a block of rows and one tile of keys: queries by keys, and
// weights by values; on vectors, or on AMX tiles.
#pragma once

#include "level.h"
#include "tiles.h"
#include "vector.h"

namespace RS_LEVEL {
namespace {

constexpr int VECTORS = KEY_TILE / LANES;

struct Scratch {
  uint32_t* queries;  // [rows, D / 2] pairs of bfloat16, scaled
  float* sums;        // [rows, D] of weighted values
  float* peaks;       // [rows] largest score so far
  float* totals;      // [rows] sum of weights so far
  uint32_t* keys;     // [D / 2, 64]: pairs of dimensions of each key
  uint32_t* values;   // [32, D]: each dimension of pairs of positions
  uint16_t* raw;      // [64, D]
};

#if defined(__AMX_BF16__)

constexpr int BLOCK_ROWS = 16;

// Configures the tiles while it lives: 0 to 3 for sums, 4 for a block's rows, 5 for keys or values.
class ProductTiles {
 public:
  ProductTiles(int num_rows, int) {
    const uint8_t rows = static_cast<uint8_t>(num_rows < BLOCK_ROWS ? num_rows : BLOCK_ROWS);
    TileShapes shapes;
    for (int tile = 0; tile < 5; ++tile) shapes.set(tile, rows, 64);
    shapes.set(5, 16, 64);
    shapes.use();
  }
  ~ProductTiles() { _tile_release(); }
  ProductTiles(const ProductTiles&) = delete;
  ProductTiles& operator=(const ProductTiles&) = delete;
};

// Adds to tiles 0 to 3 what the rows' 32 further inputs and four times 16 columns' give.
RS_INLINE void multiply_step(const uint32_t* rows, size_t row_bytes, const uint32_t* columns, size_t column_bytes, int num_columns) {
  _tile_loadd(4, rows, row_bytes);
  _tile_loadd(5, columns, column_bytes);
  _tile_dpbf16ps(0, 4, 5);
  _tile_loadd(5, columns + LANES, column_bytes);
  _tile_dpbf16ps(1, 4, 5);
  if (num_columns < 64) return;
  _tile_loadd(5, columns + 2 * LANES, column_bytes);
  _tile_dpbf16ps(2, 4, 5);
  _tile_loadd(5, columns + 3 * LANES, column_bytes);
  _tile_dpbf16ps(3, 4, 5);
}

RS_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

RS_INLINE void store_sums(float* sums, int num_columns, size_t row_bytes) {
  _tile_stored(0, sums, row_bytes);
  _tile_stored(1, sums + LANES, row_bytes);
  if (num_columns < 64) return;
  _tile_stored(2, sums + 2 * LANES, row_bytes);
  _tile_stored(3, sums + 3 * LANES, row_bytes);
}

RS_INLINE void multiply_by_keys(const Scratch& scratch, int size, int row, int, float (&scores)[BLOCK_ROWS][KEY_TILE]) {
  const size_t row_bytes = static_cast<size_t>(size) * 2;
  settle_memory(scores);
  clear_sums();
  for (int pair = 0; pair < size / 2; pair += LANES)
    multiply_step(scratch.queries + row * size / 2 + pair, row_bytes, scratch.keys + pair * KEY_TILE, KEY_TILE * 4, KEY_TILE);
  store_sums(scores[0], KEY_TILE, KEY_TILE * 4);
  settle_memory(scores);
}

RS_INLINE void add_weighted_values(const Scratch& scratch, int size, int row, int count, const float* shrinks,
                                   const uint32_t (&weights)[BLOCK_ROWS][KEY_TILE / 2]) {
  alignas(64) float products[BLOCK_ROWS][64];
  for (int at = 0; at < size; at += 64) {
    const int width = size - at < 64 ? size - at : 64;
    settle_memory(weights);
    settle_memory(products);
    clear_sums();
    for (int pair = 0; pair < KEY_TILE / 2; pair += LANES)
      multiply_step(weights[0] + pair, KEY_TILE * 2, scratch.values + pair * size + at, static_cast<size_t>(size) * 4, width);
    store_sums(products[0], width, sizeof products[0]);
    settle_memory(products);
    for (int r = 0; r < count; ++r)
      for (int i = 0; i < width; i += LANES) {
        float* sum = scratch.sums + (row + r) * size + at + i;
        store(sum, multiply_add(load<Floats>(sum), splat(shrinks[r]), load<Floats>(products[r] + i)));
      }
  }
}

#else

constexpr int BLOCK_ROWS = 4;

struct ProductTiles {
  ProductTiles(int, int) {}
};

template <int ROWS>
RS_INLINE void multiply_rows_by_keys(const Scratch& scratch, int size, int row, float (*output)[KEY_TILE]) {
  Floats scores[ROWS][VECTORS] = {};
  for (int pair = 0; pair < size / 2; ++pair) {
    Words keys[VECTORS];
    for (int v = 0; v < VECTORS; ++v) keys[v] = load<Words>(scratch.keys + pair * KEY_TILE + v * LANES);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const Words query = splat_word(scratch.queries + (row + r) * (size / 2) + pair);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) scores[r][v] = dot_pairs(scores[r][v], keys[v], query);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) store(output[r] + v * LANES, scores[r][v]);
}

// 64 (or the last 32) dimensions at a time.
template <int ROWS, int WIDTH>
RS_INLINE void add_values(const Scratch& scratch, int size, int row, int at, const float* shrinks, const uint32_t (*weights)[KEY_TILE / 2]) {
  Floats sums[ROWS][WIDTH];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < WIDTH; ++v)
      sums[r][v] = load<Floats>(scratch.sums + (row + r) * size + at + v * LANES) * splat(shrinks[r]);
  for (int pair = 0; pair < KEY_TILE / 2; ++pair) {
    Words values[WIDTH];
    for (int v = 0; v < WIDTH; ++v) values[v] = load<Words>(scratch.values + pair * size + at + v * LANES);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const Words weight = splat_word(weights[r] + pair);
#pragma GCC unroll 4
      for (int v = 0; v < WIDTH; ++v) sums[r][v] = dot_pairs(sums[r][v], values[v], weight);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < WIDTH; ++v) store(scratch.sums + (row + r) * size + at + v * LANES, sums[r][v]);
}

template <int ROWS>
void add_rows_of_values(const Scratch& scratch, int size, int row, const float* shrinks, const uint32_t (*weights)[KEY_TILE / 2]) {
  int at = 0;
  for (; at + 64 <= size; at += 64) add_values<ROWS, 4>(scratch, size, row, at, shrinks, weights);
  if (at < size) add_values<ROWS, 2>(scratch, size, row, at, shrinks, weights);
}

RS_INLINE void multiply_by_keys(const Scratch& scratch, int size, int row, int count, float (&scores)[BLOCK_ROWS][KEY_TILE]) {
  switch (count) {
    case 1: return multiply_rows_by_keys<1>(scratch, size, row, scores);
    case 2: return multiply_rows_by_keys<2>(scratch, size, row, scores);
    case 3: return multiply_rows_by_keys<3>(scratch, size, row, scores);
    default: return multiply_rows_by_keys<4>(scratch, size, row, scores);
  }
}

RS_INLINE void add_weighted_values(const Scratch& scratch, int size, int row, int count, const float* shrinks,
                                   const uint32_t (&weights)[BLOCK_ROWS][KEY_TILE / 2]) {
  switch (count) {
    case 1: return add_rows_of_values<1>(scratch, size, row, shrinks, weights);
    case 2: return add_rows_of_values<2>(scratch, size, row, shrinks, weights);
    case 3: return add_rows_of_values<3>(scratch, size, row, shrinks, weights);
    default: return add_rows_of_values<4>(scratch, size, row, shrinks, weights);
  }
}

#endif

}  // namespace
}  // namespace RS_LEVEL
