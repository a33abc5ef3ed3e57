// Causal attention through block tables, for a few queries of one chunk and one key head.
//
// The query heads that share a key head are computed together, as further rows. Keys come in tiles
// of 64 positions, aligned to absolute positions and taken in ascending order; a tile in which a
// row sees nothing leaves its sums exactly as they are. So a row's result depends neither on the
// chunk it is computed in nor on the block size. Tiles that no row sees are not read.
// Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax (arXiv 1805.02867).
#include "attention.h"

namespace RS_LEVEL {
namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr float NOTHING_YET = -1e30f;  // below any score, and its difference to itself is 0

Scratch lay_out(const AttendTask& task, int num_rows, int size) {
  uint8_t* at = task.scratch;
  const auto take = [&at](size_t num_bytes) {
    uint8_t* place = at;
    at += (num_bytes + 63) / 64 * 64;
    return place;
  };
  const size_t rows = static_cast<size_t>(num_rows + BLOCK_ROWS), width = static_cast<size_t>(size);
  Scratch scratch;
  scratch.queries = reinterpret_cast<uint32_t*>(take(rows * width * 2));
  scratch.sums = reinterpret_cast<float*>(take(rows * width * 4));
  scratch.peaks = reinterpret_cast<float*>(take(rows * 4));
  scratch.totals = reinterpret_cast<float*>(take(rows * 4));
  scratch.keys = reinterpret_cast<uint32_t*>(take(KEY_TILE * width * 2));
  scratch.values = reinterpret_cast<uint32_t*>(take(KEY_TILE * width * 2));
  scratch.raw = reinterpret_cast<uint16_t*>(take(KEY_TILE * width * 2));
  return scratch;
}

// Row q * group + h is query q, the h-th of the key head's query heads.
void load_queries(const AttendTask& task, int group, int size, const Scratch& scratch) {
  const int head_size = task.heads->head_size;
  const Floats scale = splat(LOG2_E / __builtin_sqrtf(static_cast<float>(head_size)));
  for (int row = 0; row < task.num_queries * group; ++row) {
    const float* query = task.query + task.query_stride * (row / group) + (task.kv_head * group + row % group) * head_size;
    uint16_t* halves = reinterpret_cast<uint16_t*>(scratch.queries) + row * size;
    for (int at = 0; at < size; at += LANES) store(halves + at, to_bfloat16(load_some(query + at, head_size - at) * scale));
    memset(scratch.sums + row * size, 0, sizeof(float) * static_cast<size_t>(size));
    scratch.peaks[row] = NOTHING_YET;
    scratch.totals[row] = 0.0f;
  }
}

RS_INLINE void copy_halves(uint16_t* to, const uint8_t* from, int head_size) {
  int at = 0;
  for (; at + 2 * LANES <= head_size; at += 2 * LANES) store(to + at, load<Words>(from + 2 * at));
  if (at < head_size) memcpy(to + at, from + 2 * at, sizeof(uint16_t) * static_cast<size_t>(head_size - at));
}

RS_INLINE void copy_codes(uint16_t* to, const uint8_t* from, int head_size) {
  const Floats scale = splat(load<float>(from + head_size));
  for (int at = 0; at < head_size; at += LANES) {
    const size_t count = static_cast<size_t>(head_size - at < LANES ? head_size - at : LANES);
    Codes codes = {};
    memcpy(&codes, from + at, count);
    const Halves halves = to_bfloat16(__builtin_convertvector(codes, Floats) * scale);
    memcpy(to + at, &halves, sizeof(uint16_t) * count);
  }
}

RS_INLINE void copy_head(int32_t format, uint16_t* to, const uint8_t* from, int head_size) {
  if (format == RS_CACHE_INT8)
    copy_codes(to, from, head_size);
  else
    copy_halves(to, from, head_size);
}

// A tile's rows of one cache tensor, block after block; positions outside [first, last) become zeros.
// The same rows of `other`, which are wanted next, are on their way from memory meanwhile.
void gather(const AttendTask& task, const uint8_t* cached, const uint8_t* other, int64_t tile, int64_t first, int64_t last, int size, uint16_t* raw) {
  const rs_heads& heads = *task.heads;
  const rs_group& group = *task.group;
  const int64_t* table = group.tables + static_cast<int64_t>(task.chunk) * group.table_width;
  const int32_t format = task.cache->format;
  const int64_t base = group.bases[task.chunk], head_bytes = static_cast<int64_t>(cached_head_bytes(format, heads.head_size));
  const int64_t slot_bytes = heads.num_kv_heads * head_bytes;
  if (size != heads.head_size || first > tile || last < tile + KEY_TILE)
    memset(raw, 0, sizeof(uint16_t) * static_cast<size_t>(KEY_TILE * size));
  for (int64_t position = first; position < last;) {
    const int64_t index = (position - base) / group.block_size, offset = (position - base) % group.block_size;
    const int64_t slot = table[index] * group.block_size + offset;
    const uint8_t *from = cached + slot * slot_bytes + task.kv_head * head_bytes, *next = other + (from - cached);
    const int64_t end = last - position < group.block_size - offset ? last : position + group.block_size - offset;
    for (; position < end; ++position, from += slot_bytes, next += slot_bytes) {
      for (int64_t at = 0; at < head_bytes; at += 64) __builtin_prefetch(next + at);
      copy_head(format, raw + (position - tile) * size, from, heads.head_size);
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

void load_keys(const Scratch& scratch, int size) {
  const size_t pairs = static_cast<size_t>(size) / 2;
  const uint32_t* raw = reinterpret_cast<const uint32_t*>(scratch.raw);
  for (size_t key = 0; key < KEY_TILE; key += LANES)
    for (size_t pair = 0; pair < pairs; pair += LANES)
      transpose_words(raw + key * pairs + pair, pairs, scratch.keys + pair * KEY_TILE + key, KEY_TILE);
}

void load_values(const Scratch& scratch, int size) {
  for (int pair = 0; pair < KEY_TILE / 2; ++pair) {
    const uint16_t* even = scratch.raw + 2 * pair * size;
    for (int at = 0; at < size; at += LANES) {
      const Words low = __builtin_convertvector(load<Halves>(even + at), Words);
      const Words high = __builtin_convertvector(load<Halves>(even + size + at), Words);
      store(scratch.values + pair * size + at, low | high << 16);
    }
  }
}

int clamp_to_tile(int64_t offset) { return static_cast<int>(offset < 0 ? 0 : offset > KEY_TILE ? KEY_TILE : offset); }

// Hides positions outside [first, last), both counted from the tile's start.
RS_INLINE void mask(Floats (&scores)[VECTORS], int first, int last) {
  if (first <= 0 && last >= KEY_TILE) return;
  Ints position = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int v = 0; v < VECTORS; ++v, position += LANES)
    scores[v] = (position >= first) & (position < last) ? scores[v] : splat(-__builtin_inff());
}

// The highest of a row's scores in [first, last); the others are hidden.
RS_INLINE float highest(float* all_scores, int first, int last) {
  Floats scores[VECTORS];
  for (int v = 0; v < VECTORS; ++v) scores[v] = load<Floats>(all_scores + v * LANES);
  if (first > 0 || last < KEY_TILE) {
    mask(scores, first, last);
    for (int v = 0; v < VECTORS; ++v) store(all_scores + v * LANES, scores[v]);
  }
  return largest(larger(larger(scores[0], scores[1]), larger(scores[2], scores[3])));
}

// A row's scores, which are base-2 logarithms, become weights, as bfloat16 pairs; returns their sum.
RS_INLINE float weigh(const float* all_scores, float peak, uint32_t* weights) {
  Floats scores[VECTORS];
  for (int v = 0; v < VECTORS; ++v) {
    scores[v] = power_of_two(load<Floats>(all_scores + v * LANES) - splat(peak));
    store(weights + v * LANES / 2, to_bfloat16(scores[v]));
  }
  return sum_of((scores[0] + scores[1]) + (scores[2] + scores[3]));
}

// One tile of keys for rows [row, row + count) of the block: what was summed before shrinks to the
// new peaks' scale.
void attend_rows(const AttendTask& task, const Scratch& scratch, int group, int size, int row, int count, int64_t tile) {
  alignas(64) float scores[BLOCK_ROWS][KEY_TILE];
  alignas(64) uint32_t weights[BLOCK_ROWS][KEY_TILE / 2];
  float peaks[LANES] = {}, totals[LANES] = {}, shrinks[LANES];
  multiply_by_keys(scratch, size, row, count, scores);
  for (int r = 0; r < count; ++r) {
    const int64_t last = task.first_position + (row + r) / group + 1 - tile;
    const int64_t first = task.heads->window ? last - task.heads->window : 0;
    peaks[r] = highest(scores[r], clamp_to_tile(first), clamp_to_tile(last));
  }
  const Floats old_peaks = load_some(scratch.peaks + row, count), new_peaks = larger(load<Floats>(peaks), old_peaks);
  const Floats factors = power_of_two(old_peaks - new_peaks);
  store(peaks, new_peaks);
  store(shrinks, factors);
  for (int r = 0; r < count; ++r) totals[r] = weigh(scores[r], peaks[r], weights[r]);
  store_some(scratch.peaks + row, new_peaks, count);
  store_some(scratch.totals + row, multiply_add(load_some(scratch.totals + row, count), factors, load<Floats>(totals)), count);
  add_weighted_values(scratch, size, row, count, shrinks, weights);
}

void write_output(const AttendTask& task, const Scratch& scratch, int group, int size) {
  const int head_size = task.heads->head_size;
  const int64_t stride = static_cast<int64_t>(task.heads->num_heads) * head_size;
  for (int row = 0; row < task.num_queries * group; ++row) {
    float* output = task.output + stride * (row / group) + (task.kv_head * group + row % group) * head_size;
    const float* sums = scratch.sums + row * size;
    const Floats share = splat(1.0f / scratch.totals[row]);
    for (int at = 0; at < head_size; at += LANES) store_some(output + at, load<Floats>(sums + at) * share, head_size - at);
  }
}

}  // namespace

void attend(const AttendTask& task) {
  const int group = task.heads->num_heads / task.heads->num_kv_heads;
  const int size = padded_head_size(task.heads->head_size);
  const int num_rows = task.num_queries * group;
  const Scratch scratch = lay_out(task, num_rows, size);
  load_queries(task, group, size, scratch);
  const ProductTiles tiles(num_rows, size);
  const size_t next_head = task.is_last ? 0 : cached_head_bytes(task.cache->format, task.heads->head_size);
  const int64_t window = task.heads->window;
  const int64_t last = task.first_position + task.num_queries;
  const int64_t first = window && task.first_position >= window ? task.first_position - window + 1 : 0;
  for (int64_t tile = first / KEY_TILE * KEY_TILE; tile < last; tile += KEY_TILE) {
    const int64_t begin = first > tile ? first : tile, end = last < tile + KEY_TILE ? last : tile + KEY_TILE;
    gather(task, task.cache->keys, task.cache->values, tile, begin, end, size, scratch.raw);
    load_keys(scratch, size);
    gather(task, task.cache->values, task.cache->keys + next_head, tile, begin, end, size, scratch.raw);
    load_values(scratch, size);
    for (int row = 0; row < num_rows; row += BLOCK_ROWS) {
      const int count = num_rows - row < BLOCK_ROWS ? num_rows - row : BLOCK_ROWS;
      if (task.first_position + (row + count - 1) / group >= tile) attend_rows(task, scratch, group, size, row, count, tile);
    }
  }
  write_output(task, scratch, group, size);
}

}  // namespace RS_LEVEL
