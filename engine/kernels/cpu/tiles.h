// How AMX tiles are shaped, and how their instructions get along with the compiler.
#pragma once

#include "vector.h"

#if defined(__AMX_TILE__)

namespace RS_LEVEL {
namespace {

// The compiler does not know which memory the tile instructions read and write.
RS_INLINE void settle_memory(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// The operand of the configuring instruction; `_tile_release` ends what it began.
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
  }
};

}  // namespace
}  // namespace RS_LEVEL

#endif
