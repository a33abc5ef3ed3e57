// What attention's kernels share: a task's rows and their sums so far, and the way to its slots.
#pragma once

#include <initializer_list>

#include "level.h"
#include "vector.h"

namespace RS_LEVEL {
namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr float NOTHING_YET = -1e30f;  // below any score, and its difference to itself is 0

// Takes pieces of a task's scratch memory, one after another.
class Pieces {
 public:
  explicit Pieces(void* memory) : at_(static_cast<uint8_t*>(memory)) {}

  template <class T>
  T* take(size_t count) {
    uint8_t* place = at_;
    at_ += (count * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(place);
  }

 private:
  uint8_t* at_;
};

// The sizes of a task. Its rows are all queries of its first key head, each with that head's group
// of query heads, then those of the next key head.
struct TaskShape {
  int group;      // query heads of a key head
  int head_rows;  // of one key head
  int rows;
  int size;  // of a head, padded to pairs for whole vectors

  explicit TaskShape(const AttendTask& task)
      : group(task.heads->num_heads / task.heads->num_kv_heads), head_rows(task.num_queries * group),
        rows(task.num_heads * head_rows), size(padded_head_size(task.heads->head_size)) {}

  // Where a row's head is, counted in floats from the first query's first head.
  int64_t place(const AttendTask& task, int row, int64_t stride) const {
    const int head = (task.first_head + row / head_rows) * group + row % group;
    return stride * (row % head_rows / group) + head * task.heads->head_size;
  }

  // The position of a row's query.
  int64_t position(const AttendTask& task, int row) const { return task.first_position + row % head_rows / group; }
};

// What rows have summed up, as `attend_state_floats` lays it out.
struct State {
  float* sums;    // [rows, D] of weighted values
  float* peaks;   // [rows] largest score so far, a base-2 logarithm
  float* totals;  // [rows] sum of weights so far

  State(float* floats, const TaskShape& shape)
      : sums(floats), peaks(sums + whole_tile_rows(shape.rows) * shape.size), totals(peaks + whole_tile_rows(shape.rows)) {}

  void clear(const TaskShape& shape) {
    memset(sums, 0, sizeof(float) * static_cast<size_t>(shape.rows * shape.size));
    for (int row = 0; row < whole_tile_rows(shape.rows); ++row) {
      peaks[row] = NOTHING_YET;
      totals[row] = 0.0f;
    }
  }
};

// Adds up to 16 rows' peaks and totals to those of a state. What was summed so far, and what is
// added, are to be multiplied by the factors.
struct Factors {
  alignas(64) float kept[LANES];
  alignas(64) float added[LANES];

  Factors(const State& state, int row, int count, const Floats& peaks, const Floats& totals) {
    const Floats old_peaks = load_some(state.peaks + row, count), new_peaks = larger(peaks, old_peaks);
    const Floats keep = power_of_two(old_peaks - new_peaks), add = power_of_two(peaks - new_peaks);
    const Floats old_totals = load_some(state.totals + row, count);
    store(kept, keep);
    store(added, add);
    store_some(state.peaks + row, new_peaks, count);
    const auto is_higher = peaks > old_peaks;
    store_some(state.totals + row, multiply_add(is_higher ? old_totals : totals, is_higher ? keep : add, is_higher ? totals : old_totals), count);
  }

  // One of a row's factors is 1: a sum and a product are rounded once, in one way only.
  RS_INLINE void apply(int r, float* sums, const float* products, int size) const {
    if (added[r] == 1.0f) {
      for (int at = 0; at < size; at += LANES) store(sums + at, multiply_add(load<Floats>(sums + at), splat(kept[r]), load<Floats>(products + at)));
    } else {
      for (int at = 0; at < size; at += LANES) store(sums + at, multiply_add(load<Floats>(products + at), splat(added[r]), load<Floats>(sums + at)));
    }
  }
};

// A query's head as bfloat16, scaled such that scores are base-2 logarithms; [size], zeros behind.
RS_INLINE void load_query(const AttendTask& task, const TaskShape& shape, int row, uint16_t* halves) {
  const int head_size = task.heads->head_size;
  const Floats scale = splat(LOG2_E / __builtin_sqrtf(static_cast<float>(head_size)));
  const float* query = task.query + shape.place(task, row, task.query_stride);
  for (int at = 0; at < shape.size; at += LANES) store(halves + at, to_bfloat16(load_some(query + at, head_size - at) * scale));
}

// Which positions of a tile the queries [first_query, end_query) see, counted from the tile's start.
struct Span {
  int first, end;

  Span(const AttendTask& task, int64_t tile, int first_query, int end_query) {
    const int64_t last = task.first_position + end_query - tile;
    const int64_t begin = task.heads->window ? task.first_position + first_query + 1 - task.heads->window - tile : 0;
    first = static_cast<int>(begin < 0 ? 0 : begin > KEY_TILE ? KEY_TILE : begin);
    end = static_cast<int>(last < 0 ? 0 : last > KEY_TILE ? KEY_TILE : last);
  }
};

// One layer's cache as a task finds its heads there.
class Slots {
 public:
  Slots(const AttendTask& task)
      : format(task.cache->format), head_size(task.heads->head_size), head_bytes(cached_head_bytes(format, head_size)),
        slot_bytes(head_bytes * static_cast<size_t>(task.heads->num_kv_heads)), block_size(task.group->block_size),
        table_(task.group->tables + static_cast<int64_t>(task.chunk) * task.group->table_width),
        base_(task.group->bases[task.chunk]) {}

  // Bytes from a cache tensor's start to the first head of a position.
  size_t place(int64_t position) const {
    const int64_t index = (position - base_) / block_size, offset = (position - base_) % block_size;
    return static_cast<size_t>(table_[index] * block_size + offset) * slot_bytes;
  }

  // How many positions from this one on lie in the same block.
  int64_t rest_of_block(int64_t position) const { return block_size - (position - base_) % block_size; }

  const int32_t format;
  const int head_size;
  const size_t head_bytes, slot_bytes;
  const int64_t block_size;

 private:
  const int64_t* table_;
  const int64_t base_;
};

// A tile's keys and values on their way from memory to the second-level cache, some lines at a time while something
// else is computed, and from four places at once: a core reads them faster than one after the other. A place is 16
// positions from its first visible one on; where blocks are no multiple of 16 long, only those of that block.
class Ahead {
 public:
  explicit Ahead(const AttendTask& task) {
    if (!task.is_first) return;
    begin(task, task.first_tile, 1);
    send_rest();
  }

  // For what a task sees of a tile, to be sent for in so many portions.
  void begin(const AttendTask& task, int64_t tile, int num_portions) {
    const Slots slots(task);
    const Span span(task, tile, 0, task.num_queries);
    const size_t head_offset = static_cast<size_t>(task.first_head) * slots.head_bytes;
    int num_places = 0;
    for (const uint8_t* cached : {task.cache->keys, task.cache->values}) {
      for (int group = span.first / LANES; group * LANES < span.end; ++group) {
        const int first = group * LANES < span.first ? span.first : group * LANES;  // no table tells what lies before
        places_[num_places++] = cached + slots.place(tile + first) + head_offset;
      }
      for (; num_places % PLACES != 0; ++num_places) places_[num_places] = places_[num_places - 1];
    }
    row_bytes_ = static_cast<int64_t>(slots.head_bytes) * task.num_heads;
    slot_bytes_ = static_cast<int64_t>(slots.slot_bytes);
    place_bytes_ = LANES * slot_bytes_;
    if (row_bytes_ == slot_bytes_) row_bytes_ = slot_bytes_ = place_bytes_;
    next_ = places_;
    end_ = places_ + num_places;
    row_ = at_ = 0;
    const int64_t num_rounds = num_places / PLACES * (place_bytes_ / slot_bytes_) * ((row_bytes_ + 63) / 64);
    portion_ = static_cast<int>((num_rounds + num_portions - 1) / num_portions);
  }

  // For what will be read after a tile, if that is known.
  void begin_after(const AttendTask& task, int64_t tile, int num_portions) {
    if (tile + KEY_TILE < task.end_tile) return begin(task, tile + KEY_TILE, num_portions);
    if (task.next) begin(*task.next, task.next->first_tile, num_portions);
  }

  RS_INLINE void send() { send(portion_); }
  void send_rest() { send(INT32_MAX); }

 private:
  static constexpr int PLACES = 4;

  RS_INLINE void send(int num_rounds) {
    for (; num_rounds > 0 && next_ < end_; --num_rounds) {
      for (int place = 0; place < PLACES; ++place) __builtin_prefetch(next_[place] + row_ + at_, 0, 2);
      at_ += 64;
      if (at_ < row_bytes_) continue;
      at_ = 0;
      row_ += slot_bytes_;
      if (row_ < place_bytes_) continue;
      row_ = 0;
      next_ += PLACES;
    }
  }

  const uint8_t* places_[2 * KEY_TILE / LANES];  // 16 positions each, of keys, then of values
  const uint8_t *const *next_ = places_, *const *end_ = places_;
  int64_t row_bytes_, slot_bytes_, place_bytes_, row_, at_;
  int portion_ = 0;
};

RS_INLINE void copy_halves(uint16_t* to, const uint8_t* from, int head_size) {
  int at = 0;
  for (; at + 2 * LANES <= head_size; at += 2 * LANES) store(to + at, load<Words>(from + 2 * at));
  if (at < head_size) memcpy(to + at, from + 2 * at, sizeof(uint16_t) * static_cast<size_t>(head_size - at));
}

RS_INLINE Halves from_codes(const void* from, const Floats& scale) {
#if defined(__AVX512F__)
  return to_bfloat16((Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(from))) * scale);
#else
  return to_bfloat16(__builtin_convertvector(load<Codes>(from), Floats) * scale);
#endif
}

RS_INLINE void copy_codes(uint16_t* to, const uint8_t* from, int head_size) {
  const Floats scale = splat(load<float>(from + head_size));
  int at = 0;
  for (; at + LANES <= head_size; at += LANES) store(to + at, from_codes(from + at, scale));
  if (at == head_size) return;
  Codes codes = {};
  memcpy(&codes, from + at, static_cast<size_t>(head_size - at));
  const Halves halves = from_codes(&codes, scale);
  memcpy(to + at, &halves, sizeof(uint16_t) * static_cast<size_t>(head_size - at));
}

// One head's rows of a tile as [KEY_TILE, size] bfloat16, block after block; positions outside the
// span become zeros.
inline void gather(const Slots& slots, const uint8_t* cached, int64_t tile, const Span& span, int size, uint16_t* raw) {
  if (size != slots.head_size || span.first > 0 || span.end < KEY_TILE) memset(raw, 0, sizeof(uint16_t) * static_cast<size_t>(KEY_TILE * size));
  for (int64_t position = tile + span.first, last = tile + span.end; position < last;) {
    const uint8_t* from = cached + slots.place(position);
    const int64_t rest = slots.rest_of_block(position), end = last - position < rest ? last : position + rest;
    for (; position < end; ++position, from += slots.slot_bytes) {
      uint16_t* to = raw + (position - tile) * size;
      if (slots.format == RS_CACHE_INT8)
        copy_codes(to, from, slots.head_size);
      else
        copy_halves(to, from, slots.head_size);
    }
  }
}

#if defined(__AVX512F__)
// Transposes 16 x 16 words: four rounds that exchange blocks of 1, 2, 4 and 8.
RS_INLINE void transpose_words(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
  __m512i a[LANES], b[LANES];
  for (int i = 0; i < LANES; ++i) a[i] = load<__m512i>(from + from_stride * static_cast<size_t>(i));
  for (int i = 0; i < LANES; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int i = 0; i < LANES; i += 8)
    for (int k = 0; k < 4; ++k) {
      b[i + k] = _mm512_shuffle_i32x4(a[i + k], a[i + k + 4], 0x88);
      b[i + k + 4] = _mm512_shuffle_i32x4(a[i + k], a[i + k + 4], 0xdd);
    }
  for (int k = 0; k < 8; ++k) {
    store(to + to_stride * static_cast<size_t>(k), _mm512_shuffle_i32x4(b[k], b[k + 8], 0x88));
    store(to + to_stride * static_cast<size_t>(k + 8), _mm512_shuffle_i32x4(b[k], b[k + 8], 0xdd));
  }
}
#else
RS_INLINE void transpose_words(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
  for (size_t i = 0; i < LANES; ++i)
    for (size_t k = 0; k < LANES; ++k) to[to_stride * k + i] = from[from_stride * i + k];
}
#endif

}  // namespace
}  // namespace RS_LEVEL
