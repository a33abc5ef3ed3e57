#include "thread_pool.h"

#include <algorithm>

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

ThreadPool::ThreadPool(int num_threads) : shares_(static_cast<size_t>(num_threads)) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  is_stopping_ = true;
  wake();
  for (std::thread& worker : workers_) worker.join();
}

ThreadPool::Step::Step(ThreadPool& pool) : pool_(pool) {
  const bool is_outermost = pool_.num_steps_.fetch_add(1, std::memory_order_relaxed) == 0;
  if (is_outermost && !pool_.workers_.empty()) pool_.wake();  // the workers while the first rows are prepared
}

ThreadPool::Step::~Step() { pool_.num_steps_.fetch_sub(1, std::memory_order_relaxed); }

void ThreadPool::run(const Work& work, int num_tasks, int longest) {
  if (num_tasks <= longest || workers_.empty()) {
    for (int first = 0; first < num_tasks; first += longest) work.run(work.context, first, std::min(first + longest, num_tasks), 0);
    return;
  }
  work_ = work;
  unfinished_.store(static_cast<uint32_t>(num_tasks), std::memory_order_relaxed);
  for (int thread = 0; thread < num_threads(); ++thread) {
    const Left left{static_cast<uint64_t>(first_of_share(thread, num_tasks)),
                    static_cast<uint64_t>(first_of_share(thread + 1, num_tasks)), static_cast<uint64_t>(longest)};
    shares_[static_cast<size_t>(thread)].left.store(left, std::memory_order_release);
  }
  wake();
  take_tasks(0);
  for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spin) {
    pause_briefly();
    if (spin < SPINS) continue;
    // A worker was put aside by the system in the middle of a task: leave it the core.
    if (const uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0) unfinished_.wait(left);
  }
}

void ThreadPool::wake() {
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (num_sleeping_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
}

void ThreadPool::take_tasks(int thread) {
  while (take_run(shares_[static_cast<size_t>(thread)], true, thread)) {}
  for (int distance = 1; distance < num_threads(); ++distance) {
    Share& share = shares_[static_cast<size_t>((thread + distance) % num_threads())];
    while (take_run(share, false, thread)) {}
  }
}

bool ThreadPool::take_run(Share& share, bool is_own, int thread) {
  Left left = share.left.load(std::memory_order_acquire), rest;
  do {
    if (left.first >= left.end) return false;
    const uint64_t count = std::min<uint64_t>(left.longest, left.end - left.first);
    rest = left;
    if (is_own) rest.first += count;
    else rest.end -= count;
  } while (!share.left.compare_exchange_weak(left, rest, std::memory_order_acq_rel));
  const uint64_t first = is_own ? left.first : rest.end, end = is_own ? rest.first : left.end;
  work_.run(work_.context, static_cast<int>(first), static_cast<int>(end), thread);
  const uint32_t count = static_cast<uint32_t>(end - first);
  if (unfinished_.fetch_sub(count, std::memory_order_acq_rel) == count) unfinished_.notify_all();
  return true;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    if (!wait_for_work(seen)) continue;
    seen = generation_.load(std::memory_order_acquire);
    take_tasks(thread);
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
