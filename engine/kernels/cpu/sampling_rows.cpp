// Rows of logits, shared out among the threads: each row is the work of one.
#include "context.h"
#include "sampling.h"

#define RS_DECLARE(name) \
  namespace name {       \
  extern const Level level;       \
  extern const Sampling sampling; \
  }
RS_DECLARE(portable)
#if defined(RS_HAS_AVX2)
RS_DECLARE(avx2)
#endif
#if defined(RS_HAS_AVX512)
RS_DECLARE(avx512)
#endif
#if defined(RS_HAS_AMX)
RS_DECLARE(amx)
#endif

namespace {

// The kernels of the instruction set that the context was made for.
const Sampling& sampling_of(const rs_context& context) {
#if defined(RS_HAS_AMX)
  if (&context.level == &amx::level) return amx::sampling;
#endif
#if defined(RS_HAS_AVX512)
  if (&context.level == &avx512::level) return avx512::sampling;
#endif
#if defined(RS_HAS_AVX2)
  if (&context.level == &avx2::level) return avx2::sampling;
#endif
  return portable::sampling;
}

uint8_t* scratch_of(rs_context& context, int thread, size_t num_bytes) {
  return context.scratch[static_cast<size_t>(thread)].reserve<uint8_t>(num_bytes);
}

size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

}  // namespace

void rs_draw_rows(rs_context* context, const float* logits, int32_t num_rows, int32_t vocab_size, const rs_draw* draws,
                  int64_t* token_ids) {
  const Sampling& sampling = sampling_of(*context);
  context->pool.parallel(num_rows, [&](int row, int thread) {
    token_ids[row] = sampling.draw(logits + at(row, vocab_size), vocab_size, draws[row],
                                   scratch_of(*context, thread, draw_scratch_bytes(vocab_size)));
  });
}

void rs_score_rows(rs_context* context, const float* logits, int32_t num_rows, int32_t vocab_size, const int64_t* rows,
                   const int64_t* token_ids, int32_t num_top, float* logprobs, int64_t* ranks, int64_t* top_ids,
                   float* top_logprobs) {
  const Sampling& sampling = sampling_of(*context);
  context->pool.parallel(num_rows, [&](int row, int thread) {
    const float* own = logits + at(rows ? static_cast<int>(rows[row]) : row, vocab_size);
    const RowScore told{logprobs + row, ranks + row, top_ids + at(row, num_top), top_logprobs + at(row, num_top)};
    sampling.score(own, vocab_size, token_ids[row], num_top, told, scratch_of(*context, thread, score_scratch_bytes(num_top)));
  });
}
