// `rs_context`: what all operations share. One caller at a time.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "level.h"
#include "thread_pool.h"

// Memory that grows to the largest need and is used again; contents do not survive `reserve`.
class Buffer {
 public:
  template <class T>
  T* reserve(size_t count) {
    const size_t needed = (count * sizeof(T) + 63) / 64 * 64;
    if (needed > size_) {
      memory_.reset(std::aligned_alloc(64, needed));
      if (!memory_) std::abort();  // a few megabytes: the process is past help
      size_ = needed;
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_ = 0;
};

// Rows prepared for a linear, in the forms its segments read.
struct PreparedRows {
  Rows rows{};

  void reserve(const rs_linear& linear, int num_rows, const Level& level);

 private:
  Buffer codes_, scales_, sums_, offsets_, dense_;
};

struct rs_context {
  rs_context(int num_threads, const Level& chosen) : level(chosen), pool(num_threads), scratch(static_cast<size_t>(num_threads)) {}

  const Level& level;
  ThreadPool pool;
  std::vector<Buffer> scratch;  // one a thread
  PreparedRows inputs;          // of the linear being computed
  PreparedRows gated;           // of the projection behind the gate
  Buffer hidden, residual, heads, attended;
  Buffer few;            // heads and residuals of the rows that the last layer is finished for
  Buffer attend_states;  // of rows whose tiles are computed by several tasks
  Buffer cos, sin, wanted, logits;  // of a whole step
};

// One call into the library: its threads stay awake, and what the caller has in its registers is not known.
class Call {
 public:
  explicit Call(rs_context& context) : awake_(context.pool) { context.level.begin_call(); }

 private:
  const ThreadPool::Step awake_;
};
