// Drawing tokens from rows of logits, and scoring them: the C interface, which `sampling.py` mirrors,
// and the kernels of one instruction set behind it.
#pragma once

#include <stddef.h>

#include "kernels.h"

// How one row is drawn from. Off is: top_k 0, top_p and typical_p 1, min_p and xtc_probability 0;
// temperature 0 takes the first of the largest logits, whatever the rest says, as does any row without a distribution.
struct rs_draw {
  uint64_t seed;      // these three make the row's random numbers, see philox.py
  int64_t position;
  int32_t choice;
  int32_t top_k;
  float temperature;
  float top_p;
  float min_p;
  float typical_p;
  float xtc_probability;
  float xtc_threshold;
};

// One token for each row of logits [R, V].
RS_API void rs_draw_rows(rs_context* context, const float* logits, int32_t num_rows, int32_t vocab_size,
                         const rs_draw* draws, int64_t* token_ids);
// The log-probability and rank of token_ids[i] in row rows[i] of logits, or row i where `rows` is null,
// and the num_top most probable tokens there, descending, of equals the first.
RS_API void rs_score_rows(rs_context* context, const float* logits, int32_t num_rows, int32_t vocab_size,
                          const int64_t* rows, const int64_t* token_ids, int32_t num_top, float* logprobs,
                          int64_t* ranks, int64_t* top_ids, float* top_logprobs);

// What is told of one row.
struct RowScore {
  float* logprob;
  int64_t* rank;
  int64_t* top_ids;
  float* top_logprobs;
};

struct Sampling {
  int64_t (*draw)(const float* logits, int vocab_size, const rs_draw& draw, uint8_t* scratch);
  void (*score)(const float* logits, int vocab_size, int64_t token_id, int num_top, const RowScore& told, uint8_t* scratch);
};

constexpr int SUM_BLOCK = 256;  // neighbours whose weights are summed together

constexpr int num_sum_blocks(int vocab_size) { return (vocab_size + SUM_BLOCK - 1) / SUM_BLOCK; }

// A candidate of a selection: a smaller key comes first.
struct Candidate {
  uint32_t key;
  float share;
};

constexpr int NUM_BUCKETS = 1 << 12;

inline size_t draw_scratch_bytes(int vocab_size) {
  const size_t blocks = static_cast<size_t>(num_sum_blocks(vocab_size));
  return blocks * SUM_BLOCK * (2 * sizeof(float) + sizeof(Candidate)) + blocks * 2 * sizeof(double) + NUM_BUCKETS * sizeof(double);
}

inline size_t score_scratch_bytes(int num_top) { return static_cast<size_t>(num_top) * 2 * sizeof(int64_t); }
