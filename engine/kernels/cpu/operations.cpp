#include "operations.h"

#include <algorithm>

namespace {

constexpr int ROWS_PER_TASK = 4;  // of the cheap operations, some hundred nanoseconds a row
constexpr int TASKS_PER_THREAD = 8;

int num_pieces(int count, int size) { return (count + size - 1) / size; }

template <class Body>
void for_rows(rs_context& context, int num_rows, const Body& body) {
  context.pool.parallel(num_pieces(num_rows, ROWS_PER_TASK), [&](int task, int) {
    const int last = std::min(num_rows, (task + 1) * ROWS_PER_TASK);
    for (int row = task * ROWS_PER_TASK; row < last; ++row) body(row);
  });
}

size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

// Panels of all segments, counted through, and the row blocks of each.
struct PanelGrid {
  int num_panels = 0;
  int panels_per_task;
  int num_column_tasks;
  int num_row_tasks;

  PanelGrid(int panels, int num_rows, int max_rows, int num_threads) : num_panels(panels) {
    panels_per_task = std::max(1, panels / (TASKS_PER_THREAD * num_threads));
    num_column_tasks = num_pieces(panels, panels_per_task);
    num_row_tasks = num_pieces(num_rows, max_rows);
  }

  int num_tasks() const { return num_column_tasks * num_row_tasks; }
};

// Calls body(panel, first_row, num_rows, thread) for every panel and block of rows.
template <class Body>
void for_panels(rs_context& context, int panels, int num_rows, const Body& body) {
  const int max_rows = context.level.max_panel_rows;
  const PanelGrid grid(panels, num_rows, max_rows, context.pool.num_threads());
  context.pool.parallel(grid.num_tasks(), [&](int task, int thread) {
    const int first_row = task / grid.num_column_tasks * max_rows;
    const int first_panel = task % grid.num_column_tasks * grid.panels_per_task;
    const int last_panel = std::min(panels, first_panel + grid.panels_per_task);
    for (int panel = first_panel; panel < last_panel; ++panel)
      body(panel, first_row, std::min(max_rows, num_rows - first_row), thread);
  });
}

const float* segment_bias(const rs_linear& linear, int first_output) {
  return linear.bias ? linear.bias + first_output : nullptr;
}

}  // namespace

void PreparedRows::reserve(const rs_linear& linear, int num_rows, const Level& level) {
  const int groups = num_groups(linear.in_size);
  const size_t num_places = at(num_rows + 2 * TILE_ROWS, groups);
  rows = Rows{};
  rows.num_groups = groups;
  rows.block_rows = std::clamp(num_rows, 1, TILE_ROWS);
  for (int s = 0; s < linear.num_segments; ++s) {
    if (level.only_bfloat16 || linear.segments[s].scales == RS_DENSE_BF16) {
      rows.dense = dense_.reserve<uint16_t>(num_places * GROUP);
    } else {
      rows.codes = codes_.reserve<int8_t>(num_places * CODE_BYTES);
      rows.scales = scales_.reserve<float>(num_places);
      rows.sums = sums_.reserve<int32_t>(num_places);
      rows.offsets = offsets_.reserve<float>(num_places);
    }
  }
}

void prepare_rows(rs_context& context, const rs_linear& linear, const float* values, int num_rows, PreparedRows& prepared) {
  prepared.reserve(linear, num_rows, context.level);
  for_rows(context, num_rows, [&](int row) {
    context.level.prepare(prepared.rows, row, 0, values + at(row, linear.in_size), linear.in_size);
  });
}

void norm_rows(rs_context& context, const float* hidden, const float* residual, const float* weight, float eps,
               int num_rows, int size, float* normed, float* total) {
  for_rows(context, num_rows, [&](int row) {
    const float* own = residual ? residual + at(row, size) : nullptr;
    context.level.norm(hidden + at(row, size), own, weight, eps, size, normed + at(row, size), total + at(row, size));
  });
}

void linear_rows(rs_context& context, const rs_linear& linear, const Rows& rows, int num_rows, float* output) {
  int panels = 0;
  for (int s = 0; s < linear.num_segments; ++s) panels += num_panels(linear.segments[s].out_size);
  for_panels(context, panels, num_rows, [&](int panel, int first_row, int count, int thread) {
    int s = 0, first_output = 0;
    for (; panel >= num_panels(linear.segments[s].out_size); ++s) {
      panel -= num_panels(linear.segments[s].out_size);
      first_output += linear.segments[s].out_size;
    }
    float* place = output + at(first_row, linear.out_size) + first_output + panel * PANEL_OUTPUTS;
    uint8_t* scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES);
    context.level.linear_panel({&linear.segments[s], segment_bias(linear, first_output), linear.in_size, panel,
                                first_row, count, place, linear.out_size, scratch},
                               rows);
  });
}

void gated_rows(rs_context& context, const rs_linear& gate_up, const Rows& rows, int num_rows, const rs_linear& next,
                PreparedRows& prepared) {
  prepared.reserve(next, num_rows, context.level);
  const int ffn_size = gate_up.segments[0].out_size;
  const size_t part_size = at(std::min(num_rows, context.level.max_panel_rows), PANEL_OUTPUTS);
  for_panels(context, num_panels(ffn_size), num_rows, [&](int panel, int first_row, int count, int thread) {
    uint8_t* scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES + part_size * 2 * sizeof(float));
    float* gate = reinterpret_cast<float*>(scratch);
    float* up = gate + part_size;
    scratch += part_size * 2 * sizeof(float);
    for (int s = 0; s < 2; ++s)
      context.level.linear_panel({&gate_up.segments[s], segment_bias(gate_up, s * ffn_size), gate_up.in_size, panel,
                                  first_row, count, s == 0 ? gate : up, PANEL_OUTPUTS, scratch},
                                 rows);
    const int width = std::min(PANEL_OUTPUTS, ffn_size - panel * PANEL_OUTPUTS);
    for (int row = 0; row < count; ++row) {
      float* gated = gate + at(row, PANEL_OUTPUTS);
      context.level.silu_mul(gated, up + at(row, PANEL_OUTPUTS), width, gated);
      context.level.prepare(prepared.rows, first_row + row, panel, gated, width);
    }
  });
}

void rotate_and_write_rows(rs_context& context, const rs_heads& heads, const rs_batch& batch, const rs_cache& cache,
                           const rs_layer* norms, float eps, float* qkv) {
  const int size = heads.head_size, kv_size = heads.num_kv_heads * size;
  const int num_rotated = heads.num_heads + heads.num_kv_heads;
  const rs_group& group = batch.groups[cache.group];
  const size_t slot_bytes = cached_head_bytes(cache.format, size) * static_cast<size_t>(heads.num_kv_heads);
  for_rows(context, batch.num_tokens, [&](int row) {
    float* own = qkv + at(row, num_rotated * size + kv_size);
    for (int head = 0; head < num_rotated; ++head) {
      float* place = own + head * size;
      const float* weight = !norms ? nullptr : head < heads.num_heads ? norms->query_norm : norms->key_norm;
      if (weight) context.level.norm(place, nullptr, weight, eps, size, place, place);
      context.level.rotate(place, batch.cos + at(row, size / 2), batch.sin + at(row, size / 2), size);
    }
    const size_t slot = static_cast<size_t>(group.slots[row]) * slot_bytes;
    context.level.to_cache(own + heads.num_heads * size, heads.num_kv_heads, size, cache.format, cache.keys + slot);
    context.level.to_cache(own + num_rotated * size, heads.num_kv_heads, size, cache.format, cache.values + slot);
  });
}

void embed_rows(rs_context& context, const rs_linear& table, const int64_t* token_ids, int num_tokens, float* hidden) {
  for_rows(context, num_tokens, [&](int row) {
    rs_unpack_row(&table.segments[0], table.in_size, static_cast<int32_t>(token_ids[row]), hidden + at(row, table.in_size));
  });
}
