// How attention is shared out between threads: by blocks of queries and by key heads, and where there
// are few of those, by tiles of keys. No result depends on it.
#include <algorithm>

#include "operations.h"

namespace {

constexpr int MAX_QUERY_BLOCK = 64;  // what is made ready of a tile of values serves so many queries
constexpr int MIN_QUERY_BLOCK = 16;
constexpr int TASKS_PER_THREAD = 4;

// Some rows with all the tiles that they see: computed in one run, or in several with a state for
// each tile.
struct Share {
  AttendTask task;
  int num_rows;
  int64_t tiles_per_run;

  int64_t num_tiles() const { return (task.end_tile - task.first_tile) / KEY_TILE; }
  bool is_whole() const { return tiles_per_run >= num_tiles(); }
};

struct Run {
  size_t share;
  int64_t first_tile, end_tile;
};

class Shares {
 public:
  Shares(rs_context& context, const AttendTask& common, const rs_batch& batch) : context_(context), common_(common) {
    const rs_heads& heads = *common.heads;
    const int num_tasks = TASKS_PER_THREAD * context.pool.num_threads();
    const int block = batch.num_tokens * heads.num_kv_heads / num_tasks / MIN_QUERY_BLOCK * MIN_QUERY_BLOCK;
    const int query_block = std::clamp(block, MIN_QUERY_BLOCK, MAX_QUERY_BLOCK);
    // A single query that sees a single tile has nothing else to share out.
    const bool is_alone = batch.num_tokens == 1 && batch.starts[0] < KEY_TILE && context.pool.num_threads() > 1;
    max_heads_ = is_alone ? (heads.num_kv_heads + 1) / 2 : heads.num_kv_heads;
    for (int chunk = 0; chunk < batch.num_chunks; ++chunk)
      for (int64_t row = batch.row_starts[chunk]; row < batch.row_starts[chunk + 1]; row += query_block)
        add_queries(chunk, batch.starts[chunk] - batch.row_starts[chunk], row, std::min(row + query_block, batch.row_starts[chunk + 1]));
    cut_into_runs(num_tasks);
  }

  void compute() {
    // The last queries of a long chunk, which see most, are taken first.
    context_.pool.parallel(static_cast<int>(runs_.size()), [&](int index, int thread) { compute_run(index, thread); });
    if (cut_.empty()) return;
    context_.pool.parallel(static_cast<int>(cut_.size()), [&](int index, int) {
      const Share& share = shares_[cut_[static_cast<size_t>(index)]];
      context_.level.finish_attend(share.task, static_cast<int>(share.num_tiles()));
    });
  }

 private:
  // Rows [first_row, end_row) of the batch, which are positions `to_position` on.
  void add_queries(int chunk, int64_t to_position, int64_t first_row, int64_t end_row) {
    const rs_heads& heads = *common_.heads;
    const int num_queries = static_cast<int>(end_row - first_row), head_rows = num_queries * (heads.num_heads / heads.num_kv_heads);
    const int heads_at_once = std::clamp(TILE_ROWS / head_rows, 1, max_heads_);
    AttendTask task = common_;
    task.chunk = chunk;
    task.first_position = first_row + to_position;
    task.num_queries = num_queries;
    const int64_t first_seen = heads.window ? std::max<int64_t>(0, task.first_position - heads.window + 1) : 0;
    task.first_tile = first_seen / KEY_TILE * KEY_TILE;
    task.end_tile = (task.first_position + num_queries + KEY_TILE - 1) / KEY_TILE * KEY_TILE;
    task.query += first_row * task.query_stride;
    task.output += first_row * heads.num_heads * heads.head_size;
    for (int head = 0; head < heads.num_kv_heads; head += heads_at_once) {
      task.first_head = head;
      task.num_heads = std::min(heads_at_once, heads.num_kv_heads - head);
      shares_.push_back({task, task.num_heads * head_rows, INT64_MAX});
    }
  }

  // Shares of few rows and many tiles are cut, such that there are some tasks for every thread.
  void cut_into_runs(int num_tasks) {
    int64_t num_tiles = 0, num_floats = 0;
    for (const Share& share : shares_) num_tiles += share.num_tiles();
    const int64_t longest = context_.pool.num_threads() == 1 ? num_tiles : std::max<int64_t>(1, num_tiles / num_tasks);
    for (size_t index = 0; index < shares_.size(); ++index) {
      Share& share = shares_[index];
      if (share.num_rows <= TILE_ROWS) share.tiles_per_run = longest;
      const int64_t step = share.is_whole() ? share.num_tiles() : longest;
      for (int64_t tile = share.task.first_tile; tile < share.task.end_tile; tile += step * KEY_TILE)
        runs_.push_back({index, tile, std::min(tile + step * KEY_TILE, share.task.end_tile)});
      if (share.is_whole()) continue;
      cut_.push_back(index);
      share.task.state_stride = state_floats(share);
      num_floats += share.task.state_stride * share.num_tiles();
    }
    float* states = context_.attend_states.reserve<float>(static_cast<size_t>(num_floats));
    for (const size_t index : cut_) {
      shares_[index].task.states = states;
      states += shares_[index].task.state_stride * shares_[index].num_tiles();
    }
  }

  int64_t state_floats(const Share& share) const { return attend_state_floats(share.num_rows, common_.heads->head_size); }

  AttendTask task_of(const Run& run) const {
    const Share& share = shares_[run.share];
    AttendTask task = share.task;
    if (!share.is_whole()) task.states += task.state_stride * ((run.first_tile - task.first_tile) / KEY_TILE);
    task.first_tile = run.first_tile;
    task.end_tile = run.end_tile;
    return task;
  }

  void compute_run(int index, int thread) {
    const Run& run = runs_[static_cast<size_t>(index)];
    const Share& share = shares_[run.share];
    AttendTask task = task_of(run), next;
    const int num_runs = static_cast<int>(runs_.size());
    const int first = context_.pool.first_of_share(thread, num_runs), end = context_.pool.first_of_share(thread + 1, num_runs);
    const bool is_own = first <= index && index < end;  // others are taken in descending order
    task.is_first = !is_own || index == first;
    if (is_own && index + 1 < end) {
      next = task_of(runs_[static_cast<size_t>(index) + 1]);
      task.next = &next;
    }
    const size_t scratch_bytes = attend_scratch_bytes(share.num_rows, task.num_heads, task.heads->head_size);
    const size_t state_bytes = sizeof(float) * static_cast<size_t>(state_floats(share));
    task.scratch = context_.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(scratch_bytes + state_bytes);
    if (share.is_whole()) task.states = reinterpret_cast<float*>(task.scratch + scratch_bytes);
    context_.level.attend(task);
    if (share.is_whole()) context_.level.finish_attend(task, 1);
  }

  rs_context& context_;
  const AttendTask& common_;
  int max_heads_;  // key heads of a task
  std::vector<Share> shares_;
  std::vector<Run> runs_;
  std::vector<size_t> cut_;  // shares of several runs
};

}  // namespace

void attend_rows(rs_context& context, const rs_heads& heads, const rs_batch& batch, const rs_cache& cache,
                 const float* query, int64_t query_stride, float* output) {
  AttendTask common{};
  common.heads = &heads;
  common.cache = &cache;
  common.group = &batch.groups[cache.group];
  common.query = query;
  common.query_stride = query_stride;
  common.output = output;
  Shares(context, common, batch).compute();
}
