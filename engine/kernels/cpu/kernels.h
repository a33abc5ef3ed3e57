// The library's C interface: what `library.py` mirrors with ctypes.
//
// All tensors are raw pointers to contiguous memory owned by the caller. Letters are those of
// engine/batch.py: T tokens, H query heads, K key/value heads, D head size, E model width,
// F feed-forward width, S chunks, B block size. Activations are float32, cached keys and values
// bfloat16 or 8-bit codes.
#pragma once

#include <stdint.h>

#define RS_API extern "C" __attribute__((visibility("default")))

// How a tile's codes become weights: w = d * (u - centre), w = d * u + m, or bfloat16 as it is.
enum rs_scales : int32_t { RS_CENTRED_F16 = 0, RS_AFFINE_F16 = 1, RS_AFFINE_F32 = 2, RS_DENSE_BF16 = 3 };

// Rows of one checkpoint tensor, packed in column tiles of 16 outputs; see `packing.h`.
struct rs_segment {
  const uint8_t* tiles;
  int32_t out_size;
  int32_t code_bits;  // 4 or 8; 16 for RS_DENSE_BF16
  int32_t scales;     // an rs_scales
  int32_t centre;     // of RS_CENTRED_F16
};

constexpr int RS_MAX_SEGMENTS = 3;

// Projections of one input computed together: the segments' outputs follow one another.
struct rs_linear {
  const float* bias;  // [out_size] or null
  int32_t in_size;
  int32_t out_size;
  int32_t num_segments;
  int32_t unused;
  rs_segment segments[RS_MAX_SEGMENTS];
};

struct rs_layer {
  const float* input_norm;  // [E]
  const float* mlp_norm;    // [E]
  const float* query_norm;  // [D] or null
  const float* key_norm;    // [D] or null
  const rs_linear* qkv;     // segments query, key, value
  const rs_linear* output;
  const rs_linear* gate_up;  // segments gate, up
  const rs_linear* down;
  int32_t window;  // visible positions, the query's own included; 0 for all
  int32_t unused;
};

struct rs_model {
  const rs_layer* layers;
  const float* final_norm;          // [E]
  const rs_linear* embedding;       // one segment [V, E]
  int32_t num_layers;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_size;
  int32_t model_size;
  int32_t ffn_size;
  float norm_eps;
  int32_t unused;
};

// Where a cache group's tokens lie: position p of chunk s is in slot
// tables[s * table_width + (p - bases[s]) / block_size] * block_size + p % block_size.
struct rs_group {
  const int64_t* slots;   // [T]
  const int64_t* tables;  // [S, table_width]
  const int64_t* bases;   // [S]
  int32_t table_width;
  int32_t block_size;
};

// One step's chunks: chunk s is rows [row_starts[s], row_starts[s + 1]), from position starts[s].
struct rs_batch {
  const int64_t* row_starts;  // [S + 1]
  const int64_t* starts;      // [S]
  const float* cos;           // [T, D / 2]
  const float* sin;           // [T, D / 2]
  const rs_group* groups;
  int32_t num_tokens;
  int32_t num_chunks;
};

// A head of a slot is D bfloat16 numbers, or D signed 8-bit codes with their float32 scale behind them.
enum rs_cache_format : int32_t { RS_CACHE_BF16 = 0, RS_CACHE_INT8 = 1 };

struct rs_cache {
  uint8_t* keys;    // [slots, K, bytes of a head]
  uint8_t* values;  // [slots, K, bytes of a head]
  int32_t group;
  int32_t format;
};

// Sizes of one attention layer.
struct rs_heads {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_size;
  int32_t window;  // 0 for all
};

// What every step of a model is computed with.
struct rs_stage {
  const rs_model* model;
  const rs_linear* head;     // one segment [V, E]
  const rs_cache* caches;    // one a layer
  const float* cos;          // [positions, D / 2], from position 0 on
  const float* sin;          // [positions, D / 2]
  int32_t num_groups;
  int32_t block_size;
};

struct rs_draw;  // see sampling.h

struct rs_context;  // a thread pool, the instruction set in use, scratch memory

// Name of instruction set `level`, or null beyond the last; levels ascend in speed.
RS_API const char* rs_level_name(int32_t level);
// Whether this machine and this build have it.
RS_API int32_t rs_level_supported(int32_t level);
RS_API rs_context* rs_create(int32_t num_threads, int32_t level);
RS_API void rs_destroy(rs_context* context);

// Bytes that a segment's tiles take, and the packing of rows into them; false where a scale is infinite or no
// number. `source` is a GGML tensor type; row i of the segment is row row_order[i] of the source (i itself where it
// is null).
RS_API int64_t rs_segment_bytes(const rs_segment* segment, int32_t in_size);
RS_API int32_t rs_pack(const rs_segment* segment, int32_t in_size, int32_t source, const void* rows,
                       int64_t row_bytes, const int32_t* row_order);
// Row `row` of a segment as float32, for tests and look-ups.
RS_API void rs_unpack_row(const rs_segment* segment, int32_t in_size, int32_t row, float* values);

// Each operation reads [T, ...] rows and equals its namesake in reference.py within rounding.
RS_API void rs_norm_residual(rs_context* context, const float* hidden, const float* residual, const float* weight,
                             float eps, int32_t num_rows, int32_t size, float* normed, float* total);
RS_API void rs_linear_forward(rs_context* context, const rs_linear* linear, const float* hidden, int32_t num_rows,
                              float* output);
RS_API void rs_silu_mul(rs_context* context, const float* gate_up, int32_t num_rows, int32_t ffn_size, float* output);
RS_API void rs_rotate_and_write(rs_context* context, const rs_heads* heads, const rs_batch* batch,
                                const rs_cache* cache, float* qkv);
RS_API void rs_attend(rs_context* context, const rs_heads* heads, const rs_batch* batch, const rs_cache* cache,
                      const float* query, int64_t query_stride, float* output);
RS_API void rs_embed(rs_context* context, const rs_linear* table, const int64_t* token_ids, int32_t num_tokens,
                     float* hidden);
// All layers and the final norm: the wanted rows' hidden states [R, E]. The words of a step are: S, R, the R wanted
// rows; then for each of the S chunks its first position, its number of tokens, these, and for each cache group the
// number of the first block it reads, how many follow one another from there, and their ids.
RS_API void rs_run_step(rs_context* context, const rs_stage* stage, const int64_t* words, float* hidden);
// That, then the head, and one token drawn from each wanted row.
RS_API void rs_run_step_and_draw(rs_context* context, const rs_stage* stage, const int64_t* words, const rs_draw* draws,
                                 int64_t* token_ids);
// What all threads together can do per second: bytes read of `memory`, operations on 8-bit codes.
RS_API void rs_measure_limits(rs_context* context, const uint8_t* memory, int64_t num_bytes, double* rates);
