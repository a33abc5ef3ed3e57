// What a thread can do at best: reading memory, and multiplying codes in registers. The benchmark's
// measure of all other kernels.
#include "level.h"
#include "tiles.h"
#include "vector.h"

namespace RS_LEVEL {

// A number that depends on every word, so that none is left out. Four places at a time, each sent for some lines
// before: one place alone brings half to two thirds as many bytes to a core.
int32_t read_all(const uint8_t* memory, size_t num_bytes) {
  constexpr size_t PLACES = 4, AHEAD = 4096;
  const size_t part = num_bytes / PLACES / 64 * 64;
  Words sums[PLACES] = {};
  for (size_t at = 0; at < part; at += 64)
    for (size_t place = 0; place < PLACES; ++place) {
      const uint8_t* line = memory + place * part + at;
      __builtin_prefetch(line + AHEAD);
      sums[place] += load<Words>(line);
    }
  return sum_of((Ints)((sums[0] + sums[1]) + (sums[2] + sums[3])));
}

#if defined(__AMX_INT8__)

int64_t multiply_codes(int num_rounds) {
  TileShapes shapes;
  for (int tile = 0; tile < 6; ++tile) shapes.set(tile, 16, 64);
  shapes.use();
  for (int round = 0; round < num_rounds; ++round) {
    _tile_dpbsud(0, 4, 5);
    _tile_dpbsud(1, 4, 5);
    _tile_dpbsud(2, 4, 5);
    _tile_dpbsud(3, 4, 5);
  }
  _tile_release();
  return int64_t{4} * 16 * 16 * 64 * num_rounds;
}

#else

int64_t multiply_codes(int num_rounds) {
  constexpr int CHAINS = 12;
  const Bytes codes = (Bytes)splat(0x01010101);
  const int32_t four = 0x01010101;
  Ints sums[CHAINS] = {};
  for (int round = 0; round < num_rounds; ++round)
#pragma GCC unroll 12
    for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = dot_codes(sums[chain], codes, &four);
  Ints total = {};
  for (const Ints& sum : sums) total += sum;
  [[maybe_unused]] volatile int32_t used = sum_of(total);
  return int64_t{CHAINS} * 64 * num_rounds;
}

#endif

}  // namespace RS_LEVEL
