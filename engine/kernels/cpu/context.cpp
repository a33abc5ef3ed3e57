// The library's door: which instruction sets there are, and every operation by itself.
#include "context.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(RS_HAS_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <chrono>
#include <cstring>

#include "operations.h"

namespace portable { extern const Level level; }
#if defined(RS_HAS_AVX2)
namespace avx2 { extern const Level level; }
#endif
#if defined(RS_HAS_AVX512)
namespace avx512 { extern const Level level; }
#endif
#if defined(RS_HAS_AMX)
namespace amx { extern const Level level; }
#endif

namespace {

bool always() { return true; }

#if defined(__x86_64__)
struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers registers;
  __get_cpuid_count(leaf, subleaf, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx);
  return registers;
}

bool has(uint32_t word, std::initializer_list<int> bits) {
  for (const int bit : bits)
    if (!(word >> bit & 1)) return false;
  return true;
}

// Whether the system saves these register states when it changes threads.
bool system_saves(std::initializer_list<int> states) {
  if (!has(cpuid(1, 0).ecx, {27})) return false;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has(low, states);
}

[[maybe_unused]] bool has_avx2() {
  return system_saves({1, 2}) && has(cpuid(1, 0).ecx, {12, 28, 29}) && has(cpuid(7, 0).ebx, {5});
}

// F, DQ, BW, VL; VNNI; BF16.
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && system_saves({5, 6, 7}) && has(cpuid(7, 0).ebx, {16, 17, 30, 31}) &&
         has(cpuid(7, 0).ecx, {11}) && has(cpuid(7, 1).eax, {5});
}

#if defined(RS_HAS_AMX)
// The system hands out the tiles' large state only to processes that ask.
bool may_use_tiles() {
  constexpr long ASK_FOR_STATE = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
}

bool has_amx() { return has_avx512() && system_saves({17, 18}) && has(cpuid(7, 0).edx, {22, 23, 24, 25}) && may_use_tiles(); }
#endif
#endif

struct Choice {
  const char* name;
  bool (*is_supported)();
  const Level* level;
};

constexpr Choice CHOICES[] = {
    {"portable", always, &portable::level},
#if defined(RS_HAS_AVX2)
    {"avx2", has_avx2, &avx2::level},
#endif
#if defined(RS_HAS_AVX512)
    {"avx512", has_avx512, &avx512::level},
#endif
#if defined(RS_HAS_AMX)
    {"amx", has_amx, &amx::level},
#endif
};
constexpr int NUM_CHOICES = static_cast<int>(sizeof CHOICES / sizeof CHOICES[0]);

}  // namespace

const char* rs_level_name(int32_t level) { return level < NUM_CHOICES ? CHOICES[level].name : nullptr; }

int32_t rs_level_supported(int32_t level) { return CHOICES[level].is_supported(); }

rs_context* rs_create(int32_t num_threads, int32_t level) { return new rs_context(num_threads, *CHOICES[level].level); }

void rs_destroy(rs_context* context) { delete context; }

void rs_norm_residual(rs_context* context, const float* hidden, const float* residual, const float* weight, float eps,
                      int32_t num_rows, int32_t size, float* normed, float* total) {
  norm_rows(*context, hidden, residual, weight, eps, num_rows, size, normed, total);
}

void rs_linear_forward(rs_context* context, const rs_linear* linear, const float* hidden, int32_t num_rows, float* output) {
  const Call call(*context);
  prepare_rows(*context, *linear, hidden, num_rows, context->inputs);
  linear_rows(*context, *linear, context->inputs.rows, num_rows, output);
}

void rs_silu_mul(rs_context* context, const float* gate_up, int32_t num_rows, int32_t ffn_size, float* output) {
  context->pool.parallel(num_rows, [&](int row, int) {
    const float* gate = gate_up + static_cast<size_t>(row) * 2 * static_cast<size_t>(ffn_size);
    context->level.silu_mul(gate, gate + ffn_size, ffn_size, output + static_cast<size_t>(row) * static_cast<size_t>(ffn_size));
  });
}

void rs_rotate_and_write(rs_context* context, const rs_heads* heads, const rs_batch* batch, const rs_cache* cache, float* qkv) {
  rotate_and_write_rows(*context, *heads, *batch, *cache, nullptr, 0.0f, qkv);
}

void rs_attend(rs_context* context, const rs_heads* heads, const rs_batch* batch, const rs_cache* cache,
               const float* query, int64_t query_stride, float* output) {
  const Call call(*context);
  attend_rows(*context, *heads, *batch, *cache, query, query_stride, output);
}

void rs_embed(rs_context* context, const rs_linear* table, const int64_t* token_ids, int32_t num_tokens, float* hidden) {
  embed_rows(*context, *table, token_ids, num_tokens, hidden);
}

void rs_measure_limits(rs_context* context, const uint8_t* memory, int64_t num_bytes, double* rates) {
  constexpr int ROUNDS = 100'000, PIECES_PER_THREAD = 16;
  const Call call(*context);
  const int num_pieces = PIECES_PER_THREAD * context->pool.num_threads();
  const size_t piece_bytes = static_cast<size_t>(num_bytes) / static_cast<size_t>(num_pieces) / 256 * 256;
  const auto seconds_of = [&](auto body) {
    const auto start = std::chrono::steady_clock::now();
    context->pool.parallel(num_pieces, body);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const double read_s = seconds_of([&](int piece, int) { context->level.read_all(memory + piece_bytes * static_cast<size_t>(piece), piece_bytes); });
  const double multiply_s = seconds_of([&](int, int) { context->level.multiply_codes(ROUNDS); });
  const double operations = 2.0 * static_cast<double>(context->level.multiply_codes(ROUNDS)) * num_pieces;
  rates[0] = static_cast<double>(piece_bytes) * num_pieces / read_s;
  rates[1] = operations / multiply_s;
}
