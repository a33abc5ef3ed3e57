// All layers of a decoder in one call: between operations there is no interpreter.
#include <algorithm>
#include <cstring>
#include <vector>

#include "operations.h"

namespace {

constexpr int MIN_ROWS_OF_WANTED = 4;  // of a step, for each one wanted, to take these apart in the last layer

struct Step {
  rs_context& context;
  const rs_model& model;
  const rs_batch& batch;
  float* hidden;    // [T, E] output of the last sub-layer, not yet added
  float* residual;  // [T, E]
  float* heads;     // [T, (H + 2 K) D]
  float* attended;  // [T, H D]
};

void write_heads(const Step& step, const rs_layer& layer, const rs_cache& cache) {
  const rs_model& model = step.model;
  const rs_heads heads{model.num_heads, model.num_kv_heads, model.head_size, layer.window};
  linear_rows(step.context, *layer.qkv, step.context.inputs.rows, step.batch.num_tokens, step.heads, {layer.output});
  rotate_and_write_rows(step.context, heads, step.batch, cache, &layer, model.norm_eps, step.heads);
}

void attention(const Step& step, const rs_layer& layer, const rs_cache& cache) {
  const rs_model& model = step.model;
  const rs_heads heads{model.num_heads, model.num_kv_heads, model.head_size, layer.window};
  const int num_rows = step.batch.num_tokens;
  attend_rows(step.context, heads, step.batch, cache, step.heads, layer.qkv->out_size, step.attended);
  prepare_rows(step.context, *layer.output, step.attended, num_rows, step.context.inputs);
  linear_rows(step.context, *layer.output, step.context.inputs.rows, num_rows, step.hidden, {layer.gate_up, true});
}

void feed_forward(const Step& step, const rs_layer& layer, const NextLinear& next) {
  const int num_rows = step.batch.num_tokens;
  gated_rows(step.context, *layer.gate_up, step.context.inputs.rows, num_rows, *layer.down, step.context.gated);
  linear_rows(step.context, *layer.down, step.context.gated.rows, num_rows, step.hidden, next);
}

// The norm of a sub-layer's inputs, prepared for its first linear.
void add_and_norm(const Step& step, const float* weight, bool is_first, const rs_linear& linear) {
  norm_and_prepare_rows(step.context, step.hidden, is_first ? nullptr : step.residual, weight, step.model.norm_eps,
                        step.batch.num_tokens, linear, step.hidden, step.residual, step.context.inputs);
}

// Everything behind the attention's inputs.
void rest_of_layer(const Step& step, const rs_layer& layer, const rs_cache& cache, const NextLinear& next) {
  attention(step, layer, cache);
  add_and_norm(step, layer.mlp_norm, false, *layer.gate_up);
  feed_forward(step, layer, next);
}

// Some rows of a batch as chunks of a single query each, in one of its cache groups.
class SingleQueries {
 public:
  SingleQueries(const rs_batch& all, int group_index, const int64_t* rows, int count) : groups_(static_cast<size_t>(group_index) + 1) {
    const rs_group& group = all.groups[group_index];
    for (int query = 0; query < count; ++query) {
      const int64_t chunk = std::upper_bound(all.row_starts, all.row_starts + all.num_chunks, rows[query]) - all.row_starts - 1;
      const int64_t* table = group.tables + chunk * group.table_width;
      row_starts_.push_back(query);
      starts_.push_back(all.starts[chunk] + rows[query] - all.row_starts[chunk]);
      bases_.push_back(group.bases[chunk]);
      tables_.insert(tables_.end(), table, table + group.table_width);
    }
    row_starts_.push_back(count);
    groups_.back() = {nullptr, tables_.data(), bases_.data(), group.table_width, group.block_size};
    batch = {row_starts_.data(), starts_.data(), nullptr, nullptr, groups_.data(), count, count};
  }
  SingleQueries(const SingleQueries&) = delete;
  SingleQueries& operator=(const SingleQueries&) = delete;

  rs_batch batch;

 private:
  std::vector<rs_group> groups_;
  std::vector<int64_t> row_starts_, starts_, bases_, tables_;
};

// Row rows[i] of `from` becomes row i of `to`.
void take_rows(const float* from, int width, const int64_t* rows, int count, float* to) {
  for (int row = 0; row < count; ++row, to += width)
    std::memcpy(to, from + rows[row] * width, sizeof(float) * static_cast<size_t>(width));
}

// The last layer, in which only the wanted rows need more than their keys and values; their hidden states are then
// the first rows.
void finish_few(const Step& step, const rs_layer& layer, const rs_cache& cache, const NextLinear& next, const int64_t* wanted_rows, int num_wanted) {
  const SingleQueries wanted(step.batch, cache.group, wanted_rows, num_wanted);
  const int heads_size = layer.qkv->out_size, model_size = step.model.model_size;
  float* heads = step.context.few.reserve<float>(static_cast<size_t>(num_wanted) * static_cast<size_t>(heads_size + model_size));
  float* residual = heads + static_cast<int64_t>(num_wanted) * heads_size;
  take_rows(step.heads, heads_size, wanted_rows, num_wanted, heads);
  take_rows(step.residual, model_size, wanted_rows, num_wanted, residual);
  rest_of_layer({step.context, step.model, wanted.batch, step.hidden, residual, heads, step.attended}, layer, cache, next);
  std::memcpy(step.residual, residual, sizeof(float) * static_cast<size_t>(num_wanted) * static_cast<size_t>(model_size));
}

// The final norm of the wanted rows alone; of the first ones where they are null.
void finish(const Step& step, const int64_t* wanted_rows, int num_wanted, float* output) {
  const size_t size = static_cast<size_t>(step.model.model_size);
  for (int row = 0; row < num_wanted; ++row, output += size) {
    const size_t from = static_cast<size_t>(wanted_rows ? wanted_rows[row] : row) * size;
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
  const bool are_few = num_wanted <= batch.num_tokens / MIN_ROWS_OF_WANTED;
  for (int index = 0; index < model.num_layers; ++index) {
    const rs_layer& layer = model.layers[index];
    const bool is_last = index + 1 == model.num_layers;
    const NextLinear next{is_last ? head : model.layers[index + 1].qkv};
    add_and_norm(step, layer.input_norm, index == 0, *layer.qkv);
    write_heads(step, layer, caches[index]);
    if (!is_last || !are_few)
      rest_of_layer(step, layer, caches[index], next);
    else if (num_wanted > 0)
      finish_few(step, layer, caches[index], next, wanted_rows, num_wanted);
  }
  finish(step, are_few ? nullptr : wanted_rows, num_wanted, output);
}
