#include "thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// About 50 µs: longer than the serial parts of a step, far shorter than a pause between steps.
constexpr int SPINS = 1000;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  is_stopping_ = true;
  publish(0);
  for (std::thread& worker : workers_) worker.join();
}

ThreadPool::Step::Step(ThreadPool& pool) : pool_(pool) {
  const bool is_outermost = pool_.num_steps_.fetch_add(1, std::memory_order_relaxed) == 0;
  if (is_outermost && !pool_.workers_.empty()) pool_.publish(0);  // wakes the workers while the first rows are prepared
}

ThreadPool::Step::~Step() { pool_.num_steps_.fetch_sub(1, std::memory_order_relaxed); }

void ThreadPool::run(int num_tasks, Task task, const void* context) {
  if (num_tasks <= 1 || workers_.empty()) {
    for (int index = 0; index < num_tasks; ++index) task(context, index, 0);
    return;
  }
  task_ = task;
  context_ = context;
  unfinished_.store(static_cast<uint32_t>(num_tasks), std::memory_order_relaxed);
  publish(static_cast<uint32_t>(num_tasks));
  take_tasks(generation_.load(std::memory_order_relaxed), 0);
  for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spin) {
    pause_briefly();
    if (spin < SPINS) continue;
    // A worker was put aside by the system in the middle of a task: leave it the core.
    if (const uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0) unfinished_.wait(left);
  }
}

void ThreadPool::publish(uint32_t num_tasks) {
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  ticket_.store(static_cast<uint64_t>(generation) << 32 | num_tasks, std::memory_order_release);
  generation_.store(generation, std::memory_order_seq_cst);
  if (num_sleeping_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
}

void ThreadPool::take_tasks(uint32_t generation, int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket >> 32) == generation && static_cast<uint32_t>(ticket) != 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel)) continue;
    task_(context_, static_cast<int>(static_cast<uint32_t>(ticket) - 1), thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_all();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    if (!wait_for_work(seen)) continue;
    seen = generation_.load(std::memory_order_acquire);
    take_tasks(seen, thread);
  }
}

// False after a sleep, whose reason is to be looked at again.
bool ThreadPool::wait_for_work(uint32_t seen) {
  for (int spin = 0; spin < SPINS; ++spin) {
    if (generation_.load(std::memory_order_acquire) != seen) return true;
    if (num_steps_.load(std::memory_order_relaxed) == 0) break;
    pause_briefly();
  }
  num_sleeping_.fetch_add(1, std::memory_order_seq_cst);
  generation_.wait(seen);
  num_sleeping_.fetch_sub(1, std::memory_order_seq_cst);
  return false;
}
