// Causal attention through block tables, for some queries of one chunk and some key heads.
//
// The query heads that share a key head are computed together, as further rows. Keys come in tiles of
// 128 positions, aligned to absolute positions. What a row sees of a tile has a peak of its own, and
// the tiles' sums are added up in ascending order, each shrunk to the scale of the highest peak so
// far; a tile in which a row sees nothing leaves its sums exactly as they are. So a row's result
// depends neither on the chunk it is computed in, nor on the block size, nor on how its tiles are
// shared out between threads. Tiles that no row sees are not read.
// Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax (arXiv 1805.02867).
#if defined(__AMX_BF16__)
#include "attention_tiles.h"
#else
#include "attention_vectors.h"
#endif

namespace RS_LEVEL {

void attend(const AttendTask& task) {
  const TaskShape shape(task);
  TaskProducts products(task, shape);
  float* floats = task.states;
  for (int64_t tile = task.first_tile; tile < task.end_tile; tile += KEY_TILE, floats += task.state_stride) {
    State state(floats, shape);
    if (tile == task.first_tile || task.state_stride) state.clear(shape);
    products.add_tile(tile, state);
  }
}

void finish_attend(const AttendTask& task, int num_states) {
  const TaskShape shape(task);
  const State state(task.states, shape);
  for (int other = 1; other < num_states; ++other) {
    const State added(task.states + task.state_stride * other, shape);
    for (int row = 0; row < shape.rows; row += LANES) {
      const int count = shape.rows - row < LANES ? shape.rows - row : LANES;
      const Factors factors(state, row, count, load_some(added.peaks + row, count), load_some(added.totals + row, count));
      for (int r = 0; r < count; ++r)
        factors.apply(r, state.sums + (row + r) * shape.size, added.sums + (row + r) * shape.size, shape.size);
    }
  }
  const int head_size = task.heads->head_size;
  const int64_t stride = static_cast<int64_t>(task.heads->num_heads) * head_size;
  for (int row = 0; row < shape.rows; ++row) {
    float* output = task.output + shape.place(task, row, stride);
    const Floats share = splat(1.0f / state.totals[row]);
    for (int at = 0; at < head_size; at += 2 * LANES) {
      Floats low = load<Floats>(state.sums + row * shape.size + at), high = load<Floats>(state.sums + row * shape.size + at + LANES);
      TaskProducts::put_in_order(low, high);
      store_some(output + at, low * share, head_size - at);
      if (head_size > at + LANES) store_some(output + at + LANES, high * share, head_size - at - LANES);
    }
  }
}

}  // namespace RS_LEVEL
