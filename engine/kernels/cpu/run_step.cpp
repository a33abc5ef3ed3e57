// A whole step from the words of its plan to the drawn tokens: what the interpreter would do in between
// (slots, padded tables, rows of angles, three calls) is done here, and the threads stay awake over it.
#include <algorithm>
#include <cstring>
#include <vector>

#include "operations.h"
#include "sampling.h"

namespace {

constexpr int HEAD_TILE_ROWS = 64;  // rows of logits that exist at once

size_t at(int64_t row, int64_t width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

// Reads the words one after the other.
class Reader {
 public:
  explicit Reader(const int64_t* words) : next_(words) {}
  int64_t one() { return *next_++; }
  const int64_t* many(int64_t count) {
    const int64_t* first = next_;
    next_ += count;
    return first;
  }

 private:
  const int64_t* next_;
};

// The tables of one group while their widths are not known yet, and its slots.
struct GroupWords {
  std::vector<int64_t> bases, slots, padded;
  std::vector<const int64_t*> tables;
  std::vector<int64_t> widths;
};

// A step unpacked into what `rs_batch` points to.
class Unpacked {
 public:
  Unpacked(rs_context& context, const rs_stage& stage, const int64_t* words) : groups_(static_cast<size_t>(stage.num_groups)) {
    Reader reader(words);
    const int64_t num_chunks = reader.one();
    num_wanted = static_cast<int32_t>(reader.one());
    wanted_rows = reader.many(num_wanted);
    row_starts_.push_back(0);
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
      const int64_t start = reader.one(), count = reader.one();
      const int64_t* ids = reader.many(count);
      token_ids.insert(token_ids.end(), ids, ids + count);
      starts_.push_back(start);
      row_starts_.push_back(row_starts_.back() + count);
      for (GroupWords& group : groups_) take_table(reader, group, start, count, stage.block_size);
    }
    gather_angles(context, stage);
    for (GroupWords& group : groups_) places_.push_back(pad(group, stage.block_size));
    batch = {row_starts_.data(), starts_.data(), cos_, sin_, places_.data(), static_cast<int32_t>(token_ids.size()),
             static_cast<int32_t>(num_chunks)};
  }

  rs_batch batch;
  std::vector<int64_t> token_ids;
  const int64_t* wanted_rows;
  int32_t num_wanted;

 private:
  static void take_table(Reader& reader, GroupWords& group, int64_t start, int64_t count, int64_t block_size) {
    const int64_t first_block = reader.one(), width = reader.one();
    const int64_t* block_ids = reader.many(width);
    group.bases.push_back(first_block * block_size);
    group.tables.push_back(block_ids);
    group.widths.push_back(width);
    for (int64_t position = start; position < start + count; ++position)
      group.slots.push_back(block_ids[position / block_size - first_block] * block_size + position % block_size);
  }

  static rs_group pad(GroupWords& group, int32_t block_size) {
    const int64_t width = *std::max_element(group.widths.begin(), group.widths.end());
    group.padded.resize(at(static_cast<int64_t>(group.tables.size()), width));
    for (size_t chunk = 0; chunk < group.tables.size(); ++chunk)
      std::copy_n(group.tables[chunk], group.widths[chunk], group.padded.data() + at(static_cast<int64_t>(chunk), width));
    return {group.slots.data(), group.padded.data(), group.bases.data(), static_cast<int32_t>(width), block_size};
  }

  // One row of the table of angles for each token.
  void gather_angles(rs_context& context, const rs_stage& stage) {
    const int64_t half = stage.model->head_size / 2;
    cos_ = context.cos.reserve<float>(at(row_starts_.back(), half));
    sin_ = context.sin.reserve<float>(at(row_starts_.back(), half));
    for (size_t chunk = 0; chunk < starts_.size(); ++chunk) {
      const size_t to = at(row_starts_[chunk], half), from = at(starts_[chunk], half);
      const size_t num_bytes = at(row_starts_[chunk + 1] - row_starts_[chunk], half) * sizeof(float);
      std::memcpy(cos_ + to, stage.cos + from, num_bytes);
      std::memcpy(sin_ + to, stage.sin + from, num_bytes);
    }
  }

  std::vector<int64_t> row_starts_, starts_;
  std::vector<GroupWords> groups_;
  std::vector<rs_group> places_;
  float* cos_ = nullptr;
  float* sin_ = nullptr;
};

void draw(rs_context& context, const rs_linear& head, const float* hidden, int num_rows, const rs_draw* draws, int64_t* token_ids) {
  for (int first = 0; first < num_rows; first += HEAD_TILE_ROWS) {
    const int count = std::min(HEAD_TILE_ROWS, num_rows - first);
    float* logits = context.logits.reserve<float>(at(count, head.out_size));
    rs_linear_forward(&context, &head, hidden + at(first, head.in_size), count, logits);
    rs_draw_rows(&context, logits, count, head.out_size, draws + first, token_ids + first);
  }
}

}  // namespace

void rs_run_step(rs_context* context, const rs_stage* stage, const int64_t* words, float* hidden) {
  const Unpacked step(*context, *stage, words);
  decode_step(*context, *stage->model, step.batch, stage->caches, nullptr, step.token_ids.data(), step.wanted_rows, step.num_wanted, hidden);
}

void rs_run_step_and_draw(rs_context* context, const rs_stage* stage, const int64_t* words, const rs_draw* draws, int64_t* token_ids) {
  const Call call(*context);
  const Unpacked step(*context, *stage, words);
  float* hidden = context->wanted.reserve<float>(at(step.num_wanted, stage->model->model_size));
  decode_step(*context, *stage->model, step.batch, stage->caches, stage->head, step.token_ids.data(), step.wanted_rows, step.num_wanted, hidden);
  draw(*context, *stage->head, hidden, step.num_wanted, draws, token_ids);
}
