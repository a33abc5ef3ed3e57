#include "operations.h"

#include <algorithm>

namespace {

constexpr int ROWS_PER_TASK = 4;  // of the cheap operations, some hundred nanoseconds a row

int num_pieces(int count, int size) { return (count + size - 1) / size; }

template <class Body>
void for_rows(rs_context& context, int num_rows, const Body& body) {
  context.pool.parallel(num_pieces(num_rows, ROWS_PER_TASK), [&](int task, int) {
    const int last = std::min(num_rows, (task + 1) * ROWS_PER_TASK);
    for (int row = task * ROWS_PER_TASK; row < last; ++row) body(row);
  });
}

size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

// Calls body(first_panel, num_panels, first_row, num_rows, thread) for all panels and blocks of rows, at most
// `most_panels` at a time.
template <class Body>
void for_panels(rs_context& context, int panels, int num_rows, int most_panels, const Body& body) {
  const int max_rows = context.level.max_panel_rows;
  context.pool.parallel_runs(panels * num_pieces(num_rows, max_rows), most_panels, [&](int first, int end, int thread) {
    while (first < end) {
      const int first_panel = first % panels, count = std::min(end - first, panels - first_panel);
      const int first_row = first / panels * max_rows;
      body(first_panel, count, first_row, std::min(max_rows, num_rows - first_row), thread);
      first += count;
    }
  });
}

const float* segment_bias(const rs_linear& linear, int first_output) {
  return linear.bias ? linear.bias + first_output : nullptr;
}

const uint8_t* packed_panel(const rs_segment& segment, int in_size, int panel) {
  return segment.tiles + 2 * tile_bytes(segment, in_size) * static_cast<size_t>(panel);
}

// A panel counted through all segments.
struct PanelOfLinear {
  const rs_segment* segment;
  int panel;  // of the segment
  int first_output = 0;  // of the segment

  PanelOfLinear(const rs_linear& linear, int index) : segment(linear.segments), panel(index) {
    for (; panel >= num_panels(segment->out_size); ++segment) {
      panel -= num_panels(segment->out_size);
      first_output += segment->out_size;
    }
  }

  const uint8_t* packed(int in_size) const { return packed_panel(*segment, in_size, panel); }
};

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
  for_panels(context, panels, num_rows, MAX_PANELS_AT_ONCE, [&](int first_panel, int num_panels_, int first_row, int count, int thread) {
    uint8_t* scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES);
    float* place = output + at(first_row, linear.out_size);
    PanelTask tasks[MAX_PANELS_AT_ONCE];
    for (int index = 0; index < num_panels_; ++index) {
      const PanelOfLinear panel(linear, first_panel + index), next(linear, std::min(first_panel + index + num_panels_, panels - 1));
      tasks[index] = {panel.segment, segment_bias(linear, panel.first_output), linear.in_size, panel.panel, first_row, count,
                      place + panel.first_output + panel.panel * PANEL_OUTPUTS, linear.out_size, scratch, next.packed(linear.in_size)};
    }
    context.level.linear_panels(tasks, num_panels_, rows);
  });
}

void gated_rows(rs_context& context, const rs_linear& gate_up, const Rows& rows, int num_rows, const rs_linear& next,
                PreparedRows& prepared) {
  prepared.reserve(next, num_rows, context.level);
  const int ffn_size = gate_up.segments[0].out_size;
  const size_t part_size = at(std::min(num_rows, context.level.max_panel_rows), PANEL_OUTPUTS);
  const int panels = num_panels(ffn_size);
  for_panels(context, panels, num_rows, 1, [&](int panel, int, int first_row, int count, int thread) {
    uint8_t* scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES + part_size * 2 * sizeof(float));
    float* parts[2] = {reinterpret_cast<float*>(scratch), reinterpret_cast<float*>(scratch) + part_size};
    scratch += part_size * 2 * sizeof(float);
    PanelTask tasks[2];
    for (int s = 0; s < 2; ++s) {
      const rs_segment& segment = gate_up.segments[s];
      tasks[s] = {&segment, segment_bias(gate_up, s * ffn_size), gate_up.in_size, panel, first_row, count, parts[s],
                  PANEL_OUTPUTS, scratch, packed_panel(segment, gate_up.in_size, std::min(panel + 1, panels - 1))};
    }
    context.level.linear_panels(tasks, 2, rows);
    const int width = std::min(PANEL_OUTPUTS, ffn_size - panel * PANEL_OUTPUTS);
    for (int row = 0; row < count; ++row) {
      float* gated = parts[0] + at(row, PANEL_OUTPUTS);
      context.level.silu_mul(gated, parts[1] + at(row, PANEL_OUTPUTS), width, gated);
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
