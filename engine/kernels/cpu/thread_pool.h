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
    run(num_tasks, [](const void* context, int task, int thread) { (*static_cast<const Body*>(context))(task, thread); },
        &body);
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
  using Task = void (*)(const void* context, int task, int thread);

  void run(int num_tasks, Task task, const void* context);
  void publish(uint32_t num_tasks);
  void take_tasks(uint32_t generation, int thread);
  void work(int thread);
  bool wait_for_work(uint32_t seen);

  // generation << 32 | tasks not taken yet. A thread that took a task keeps the generation from
  // ending, so it may read task_ and context_; one that comes late finds another generation.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<int> num_sleeping_{0};
  std::atomic<int> num_steps_{0};  // that live
  std::atomic<bool> is_stopping_{false};
  Task task_ = nullptr;
  const void* context_ = nullptr;
  std::vector<std::thread> workers_;
};
