// The operations over all rows, each cut into pieces for the pool. `context.cpp` offers them one
// by one, `decode_step.cpp` strings them together, `run_step.cpp` offers that.
#pragma once

#include "context.h"

void prepare_rows(rs_context& context, const rs_linear& linear, const float* values, int num_rows, PreparedRows& prepared);
void norm_rows(rs_context& context, const float* hidden, const float* residual, const float* weight, float eps,
               int num_rows, int size, float* normed, float* total);
// The linear whose weights are read after another's, if it is known: threads send for them in good time.
struct NextLinear {
  const rs_linear* linear = nullptr;
  bool is_gated = false;
};
void linear_rows(rs_context& context, const rs_linear& linear, const Rows& rows, int num_rows, float* output,
                 const NextLinear& next = {});
// silu(gate) * up of a projection with segments gate and up, prepared for `next`.
void gated_rows(rs_context& context, const rs_linear& gate_up, const Rows& rows, int num_rows, const rs_linear& next,
                PreparedRows& prepared);
// Norms (where weights are given) and rotates query and key heads in place; writes keys and values.
void rotate_and_write_rows(rs_context& context, const rs_heads& heads, const rs_batch& batch, const rs_cache& cache,
                           const rs_layer* norms, float eps, float* qkv);
void attend_rows(rs_context& context, const rs_heads& heads, const rs_batch& batch, const rs_cache& cache,
                 const float* query, int64_t query_stride, float* output);
void embed_rows(rs_context& context, const rs_linear& table, const int64_t* token_ids, int num_tokens, float* hidden);
// All layers and the final norm: the wanted rows' hidden states [num_wanted, E]. `head` is what follows, or null.
void decode_step(rs_context& context, const rs_model& model, const rs_batch& batch, const rs_cache* caches,
                 const rs_linear* head, const int64_t* token_ids, const int64_t* wanted_rows, int num_wanted, float* output);
