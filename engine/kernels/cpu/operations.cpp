#include "operations.h"

#include <algorithm>
#include <optional>

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

// A panel of some segment, and the segment's place among the outputs.
struct Panel {
  const rs_segment* segment;
  int panel = 0;
  int first_output = 0;
};

// The panels of a linear in the order in which they are read: those of its segments one after another or, of a
// projection with gate and up, in turn. A thread takes `tasks` of one panel or, of the latter, of two.
class Reading {
 public:
  Reading(const rs_linear& linear, bool is_gated) : linear_(linear), panels_per_task_(is_gated ? 2 : 1) {
    for (int s = 0; s < linear.num_segments; ++s) num_panels_ += num_panels(linear.segments[s].out_size);
  }

  int num_tasks() const { return num_panels_ / panels_per_task_; }

  Panel panel(int index) const {
    Panel place{linear_.segments, index};
    if (panels_per_task_ == 2) return {place.segment + index % 2, index / 2, index % 2 * place.segment->out_size};
    for (; place.panel >= num_panels(place.segment->out_size); ++place.segment) {
      place.panel -= num_panels(place.segment->out_size);
      place.first_output += place.segment->out_size;
    }
    return place;
  }

  const uint8_t* packed(int index) const {
    const Panel place = panel(std::min(index, num_panels_ - 1));
    return place.segment->tiles + 2 * tile_bytes(*place.segment, linear_.in_size) * static_cast<size_t>(place.panel);
  }

  // What the thread that reads a run of `count` panels will read after panel `index` of them: the next run of its
  // share, or the first of its share of `next`.
  const uint8_t* ahead(const ThreadPool& pool, const Reading* next, int thread, int index, int count) const {
    const int end = pool.first_of_share(thread + 1, num_tasks()) * panels_per_task_;
    if (index + count < end || !next) return packed(index + count);
    return next->packed(pool.first_of_share(thread, next->num_tasks()) * next->panels_per_task_ + index + count - end);
  }

  // A panel for some rows, without its output.
  PanelTask task(int index, int first_row, int num_rows) const {
    const Panel place = panel(index);
    return {place.segment, linear_.bias ? linear_.bias + place.first_output : nullptr, linear_.in_size, place.panel, first_row, num_rows,
            nullptr, 0, nullptr, nullptr};
  }

 private:
  const rs_linear& linear_;
  const int panels_per_task_;
  int num_panels_ = 0;
};

std::optional<Reading> reading_of(const NextLinear& next) {
  return next.linear ? std::optional<Reading>(std::in_place, *next.linear, next.is_gated) : std::nullopt;
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

void norm_and_prepare_rows(rs_context& context, const float* hidden, const float* residual, const float* weight, float eps,
                           int num_rows, const rs_linear& linear, float* normed, float* total, PreparedRows& prepared) {
  const int size = linear.in_size;
  prepared.reserve(linear, num_rows, context.level);
  for_rows(context, num_rows, [&](int row) {
    const float* own = residual ? residual + at(row, size) : nullptr;
    context.level.norm(hidden + at(row, size), own, weight, eps, size, normed + at(row, size), total + at(row, size));
    context.level.prepare(prepared.rows, row, 0, normed + at(row, size), size);
  });
}

void linear_rows(rs_context& context, const rs_linear& linear, const Rows& rows, int num_rows, float* output, const NextLinear& next) {
  const Reading reading(linear, false);
  const std::optional<Reading> then = reading_of(next);
  for_panels(context, reading.num_tasks(), num_rows, MAX_PANELS_AT_ONCE, [&](int first, int count, int first_row, int row_count, int thread) {
    PanelTask tasks[MAX_PANELS_AT_ONCE];
    for (int index = 0; index < count; ++index) {
      const Panel place = reading.panel(first + index);
      PanelTask& task = tasks[index] = reading.task(first + index, first_row, row_count);
      task.output = output + at(first_row, linear.out_size) + place.first_output + place.panel * PANEL_OUTPUTS;
      task.output_stride = linear.out_size;
      task.scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES);
      task.ahead = reading.ahead(context.pool, then ? &*then : nullptr, thread, first + index, count);
    }
    context.level.linear_panels(tasks, count, rows);
  });
}

void gated_rows(rs_context& context, const rs_linear& gate_up, const Rows& rows, int num_rows, const rs_linear& next,
                PreparedRows& prepared) {
  prepared.reserve(next, num_rows, context.level);
  const Reading reading(gate_up, true), then(next, false);
  for_panels(context, reading.num_tasks(), num_rows, 1, [&](int panel, int, int first_row, int row_count, int thread) {
    PanelTask tasks[2];
    for (int s = 0; s < 2; ++s) {
      PanelTask& task = tasks[s] = reading.task(2 * panel + s, first_row, row_count);
      task.scratch = context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(PANEL_SCRATCH_BYTES);
      task.ahead = reading.ahead(context.pool, &then, thread, 2 * panel + s, 2);
    }
    context.level.gated_panel(tasks[0], tasks[1], rows, prepared.rows);
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
