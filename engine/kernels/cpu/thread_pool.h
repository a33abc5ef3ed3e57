// A small pool of threads that share out numbered tasks, and sleep between steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, thread) once for every task in [0, num_tasks), on any thread, and returns
  // when all have returned. Tasks must not depend on one another.
  template <class Body>
  void parallel(int num_tasks, const Body& body) {
    parallel_runs(num_tasks, 1, [&](int task, int, int thread) { body(task, thread); });
  }

  // The same for runs of neighbours: body(first, end, thread), at most `longest` at a time. Every thread takes the
  // tasks of its own share in ascending order, then those that are left of the others' from the end.
  template <class Body>
  void parallel_runs(int num_tasks, int longest, const Body& body) {
    run({[](const void* context, int first, int end, int thread) { (*static_cast<const Body*>(context))(first, end, thread); },
         &body},
        num_tasks, longest);
  }

  // The first task of a thread's own share; of one behind the last thread, their number.
  int first_of_share(int thread, int num_tasks) const {
    return static_cast<int>(static_cast<int64_t>(num_tasks) * thread / num_threads());
  }

  // While one of these lives, workers wait for the next tasks in a short spin instead of sleeping. They nest.
  class Step {
   public:
    explicit Step(ThreadPool& pool);
    ~Step();

   private:
    ThreadPool& pool_;
  };

 private:
  struct Work {
    void (*run)(const void* context, int first, int end, int thread) = nullptr;
    const void* context = nullptr;
  };

  // The tasks of a share that are not taken yet, and how many may be taken at once, in one word: a thread that is late
  // may read it while it is written anew, and has to find all of one call.
  struct Left {
    uint64_t first : 28, end : 28, longest : 8;
  };
  static_assert(sizeof(Left) == sizeof(uint64_t) && std::atomic<Left>::is_always_lock_free);
  struct alignas(64) Share {
    std::atomic<Left> left{};
  };

  void run(const Work& work, int num_tasks, int longest);
  void wake();
  void take_tasks(int thread);
  bool take_run(Share& share, bool is_own, int thread);
  void work(int thread);
  bool wait_for_work(uint32_t seen);

  // Whoever has taken tasks keeps the call that shared them out from ending, so it may read work_;
  // one that comes late finds the shares empty, or has taken tasks of the next call.
  Work work_;
  std::vector<Share> shares_;
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<int> num_sleeping_{0};
  std::atomic<int> num_steps_{0};  // that live
  std::atomic<bool> is_stopping_{false};
  std::vector<std::thread> workers_;
};
