// All layers of a decoder in one call: between operations there is no interpreter.
#include <cstring>

#include "operations.h"

namespace {

struct Step {
  rs_context& context;
  const rs_model& model;
  const rs_batch& batch;
  float* hidden;    // [T, E] output of the last sub-layer, not yet added
  float* residual;  // [T, E]
  float* heads;     // [T, (H + 2 K) D]
  float* attended;  // [T, H D]
};

void attention(const Step& step, const rs_layer& layer, const rs_cache& cache) {
  const rs_model& model = step.model;
  const rs_heads heads{model.num_heads, model.num_kv_heads, model.head_size, layer.window};
  const int num_rows = step.batch.num_tokens;
  prepare_rows(step.context, *layer.qkv, step.hidden, num_rows, step.context.inputs);
  linear_rows(step.context, *layer.qkv, step.context.inputs.rows, num_rows, step.heads, {layer.output});
  rotate_and_write_rows(step.context, heads, step.batch, cache, &layer, model.norm_eps, step.heads);
  attend_rows(step.context, heads, step.batch, cache, step.heads, layer.qkv->out_size, step.attended);
  prepare_rows(step.context, *layer.output, step.attended, num_rows, step.context.inputs);
  linear_rows(step.context, *layer.output, step.context.inputs.rows, num_rows, step.hidden, {layer.gate_up, true});
}

void feed_forward(const Step& step, const rs_layer& layer, const NextLinear& next) {
  const int num_rows = step.batch.num_tokens;
  prepare_rows(step.context, *layer.gate_up, step.hidden, num_rows, step.context.inputs);
  gated_rows(step.context, *layer.gate_up, step.context.inputs.rows, num_rows, *layer.down, step.context.gated);
  linear_rows(step.context, *layer.down, step.context.gated.rows, num_rows, step.hidden, next);
}

void add_and_norm(const Step& step, const float* weight, bool is_first) {
  norm_rows(step.context, step.hidden, is_first ? nullptr : step.residual, weight, step.model.norm_eps,
            step.batch.num_tokens, step.model.model_size, step.hidden, step.residual);
}

// The final norm of the wanted rows alone.
void finish(const Step& step, const int64_t* wanted_rows, int num_wanted, float* output) {
  const size_t size = static_cast<size_t>(step.model.model_size);
  for (int row = 0; row < num_wanted; ++row, output += size) {
    const size_t from = static_cast<size_t>(wanted_rows[row]) * size;
    step.context.level.norm(step.hidden + from, step.residual + from, step.model.final_norm, step.model.norm_eps,
                            step.model.model_size, output, output);
  }
}

}  // namespace

void decode_step(rs_context& context, const rs_model& model, const rs_batch& batch, const rs_cache* caches,
                 const rs_linear* head, const int64_t* token_ids, const int64_t* wanted_rows, int num_wanted, float* output) {
  const Call call(context);
  const size_t num_rows = static_cast<size_t>(batch.num_tokens);
  const size_t model_size = static_cast<size_t>(model.model_size);
  const size_t query_size = static_cast<size_t>(model.num_heads * model.head_size);
  const size_t kv_size = static_cast<size_t>(model.num_kv_heads * model.head_size);
  const Step step{context, model, batch, context.hidden.reserve<float>(num_rows * model_size),
                  context.residual.reserve<float>(num_rows * model_size),
                  context.heads.reserve<float>(num_rows * (query_size + 2 * kv_size)),
                  context.attended.reserve<float>(num_rows * query_size)};
  embed_rows(context, *model.embedding, token_ids, batch.num_tokens, step.hidden);
  for (int index = 0; index < model.num_layers; ++index) {
    const rs_layer& layer = model.layers[index];
    add_and_norm(step, layer.input_norm, index == 0);
    attention(step, layer, caches[index]);
    add_and_norm(step, layer.mlp_norm, false);
    feed_forward(step, layer, {index + 1 < model.num_layers ? model.layers[index + 1].qkv : head});
  }
  finish(step, wanted_rows, num_wanted, output);
}
