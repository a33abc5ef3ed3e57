// How AMX tiles are shaped, and how their instructions get along with the compiler.
#pragma once

#include "vector.h"

#if defined(__AMX_TILE__)

namespace RS_LEVEL {

// How many rows this thread's tiles are shaped for by a linear; 0 where something else may have shaped them.
inline thread_local int rows_of_linears = 0;

namespace {

// The compiler does not know which memory the tile instructions read and write.
RS_INLINE void settle_memory(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// The operand of the configuring instruction, which takes a tenth of a microsecond.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t num_rows[16] = {};

  void set(int tile, int rows, int bytes) {
    num_rows[tile] = static_cast<uint8_t>(rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }

  void use() const {
    settle_memory(this);
    _tile_loadconfig(this);
    rows_of_linears = 0;
  }
};

}  // namespace
}  // namespace RS_LEVEL

#endif
