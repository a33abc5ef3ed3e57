// Linear maps on AMX tiles: every weight becomes bfloat16 on its way into a tile.
//
// A tile product takes 32 inputs of up to 16 rows and 16 outputs. An output's sums stay in their tile
// while the groups are taken in ascending order, so a row's result depends neither on the rows beside
// it nor on how the work is cut: between spans of groups the sums are stored and loaded as they are.
//
// Tried before: 8-bit products with the sums scaled group by group in vector registers. It rounds
// less, and takes some 2.7 times as long for 512 rows: while a tile is stored, which takes as long as a
// product, the vector units stand still.
#include "linear.h"
#include "tiles.h"

#if defined(__AMX_BF16__)

namespace RS_LEVEL {
namespace {

constexpr size_t TILE_BYTES = 1024;
constexpr size_t PREFETCH_BYTES = 4096;

RS_INLINE float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  return load<float>(&bits);
}

// A group of 32 inputs of a packed tile, to bfloat16: weights times 2^(exponent - 16). The products
// d * u + m are rounded to float16, from where a shift by three bits leads to bfloat16: the exponents'
// biases differ by 112, of which 96 are two bits that no float16 uses, and the rest is the 2^-16.
template <int BITS, int SCALES>
class Unpacker {
 public:
  static constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);

  explicit Unpacker(const rs_segment& segment)
      : factor_(_mm512_set1_ps(power_of_two(segment.exponent))),
        half_factor_(_mm512_set1_ph(static_cast<_Float16>(power_of_two(segment.exponent)))),
        zero_code_(_mm512_set1_ph(static_cast<_Float16>(1024 + segment.centre))) {
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Words pair = lane << 17 | lane << 1;  // 16-bit lanes 0 0 2 2 4 4 …
    twice_ = (__m512i)(lane << 16 | lane);
    twice_m_ = (__m512i)(lane << 16 | lane | 0x00100010);
    const __m512i codes = _mm512_and_si512((__m512i)(pair | 0x00010000), _mm512_set1_epi16(15));
    table_ = (__m512i)_mm512_sub_ph(_mm512_cvtepi16_ph(codes), _mm512_set1_ph(static_cast<_Float16>(segment.centre)));
  }

  RS_INLINE void unpack(const uint8_t* packed, uint8_t* tile) const {
    __m512h d, m = {};
    if constexpr (SCALES == RS_AFFINE_F32) {
      d = widened(packed + code_bytes(BITS));
      m = widened(packed + code_bytes(BITS) + 64);
    } else {
      const __m512i both = SCALES == RS_AFFINE_F16 ? _mm512_loadu_si512(packed + code_bytes(BITS))
                                                   : _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)(packed + code_bytes(BITS))));
      d = _mm512_mul_ph((__m512h)_mm512_permutexvar_epi16(twice_, both), half_factor_);
      if constexpr (SCALES == RS_AFFINE_F16) m = _mm512_mul_ph((__m512h)_mm512_permutexvar_epi16(twice_m_, both), half_factor_);
    }
#pragma GCC unroll 8
    for (int step = 0; step < BITS; ++step) {
      __m512i words = _mm512_loadu_si512(packed + 64 * step);
      asm("" : "+v"(words));  // or it is loaded anew for every use
      if constexpr (BITS == 4) {
#pragma GCC unroll 4
        for (int nibble = 0; nibble < 4; ++nibble) {
          const __m512i index = nibble ? _mm512_srli_epi16(words, static_cast<unsigned>(4 * nibble)) : words;
          store_row(tile, 4 * step + nibble, (__m512h)_mm512_permutexvar_epi16(index, table_), d, m);
        }
      } else {
        const __m512i magic = _mm512_set1_epi16(0x6400);  // 1024, of which the last bit is worth one
        const __m512i even = _mm512_ternarylogic_epi64(words, _mm512_set1_epi16(0xff), magic, 0xea);
        const __m512i odd = _mm512_or_si512(_mm512_srli_epi16(words, 8), magic);
        store_row(tile, 4 * (step % 4) + step / 4, _mm512_sub_ph((__m512h)even, zero_code_), d, m);
        store_row(tile, 4 * (step % 4) + step / 4 + 2, _mm512_sub_ph((__m512h)odd, zero_code_), d, m);
      }
    }
  }

 private:
  RS_INLINE __m512h widened(const uint8_t* scales) const {
    const __m256i halves = _mm512_cvtps_ph(_mm512_mul_ps(_mm512_loadu_ps(scales), factor_), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (__m512h)_mm512_permutexvar_epi16(twice_, _mm512_castsi256_si512(halves));
  }

  RS_INLINE void store_row(uint8_t* tile, int row, __m512h codes, __m512h d, __m512h m) const {
    const __m512h weights = SCALES == RS_CENTRED_F16 ? _mm512_mul_ph(codes, d) : _mm512_fmadd_ph(codes, d, m);
    const __m512i shifted = _mm512_mulhrs_epi16((__m512i)weights, _mm512_set1_epi16(1 << 12));  // rounded, by three bits
    // (shifted & 0x8fff) | 0x3000: a negative number's shift has filled its exponent with ones
    _mm512_store_si512(tile + 64 * row, _mm512_ternarylogic_epi64(shifted, _mm512_set1_epi16(static_cast<short>(0x8fff)), _mm512_set1_epi16(0x3000), 0xea));
  }

  __m512i table_, twice_, twice_m_;
  __m512 factor_;
  __m512h half_factor_, zero_code_;
};

// Dense weights are packed as a tile takes them.
struct Copier {
  static constexpr size_t STRIDE = TILE_BYTES;
  explicit Copier(const rs_segment&) {}
  RS_INLINE void unpack(const uint8_t* packed, uint8_t* tile) const {
#pragma GCC unroll 16
    for (int row = 0; row < TILE_ROWS; ++row) _mm512_store_si512(tile + 64 * row, _mm512_loadu_si512(packed + 64 * row));
  }
};

// Groups whose weights are unpacked together, for all rows: they stay in the first-level cache, with
// room for the rows' inputs that pass by. More rows make up for the room that more groups take.
constexpr int MAX_SPAN = 16;
constexpr int FEW_BLOCKS = 8, SPAN_OF_FEW = 8;
constexpr int RING = 4;  // tiles of a side: 4096 bytes, beyond which stores are mistaken for one another

struct alignas(64) TiledScratch {
  uint8_t ring[RING][TILE_BYTES];
  uint8_t weights[MAX_SPAN][2][TILE_BYTES];
  float sums[MAX_TILED_ROWS / TILE_ROWS][2][TILE_ROWS][TILE_OUTPUTS];
};
static_assert(sizeof(TiledScratch) <= PANEL_SCRATCH_BYTES);

// Tiles 0 and 1 take rows, 2 and 3 weights, 4 to 7 sums: those of tile 0 by 2 and 3, then of tile 1.
// They keep their shapes, since the next panel has the same.
void shape_tiles(int num_rows) {
  if (rows_of_linears == num_rows) return;
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) shapes.set(tile, tile == 2 || tile == 3 ? TILE_ROWS : num_rows, 64);
  shapes.use();
  rows_of_linears = num_rows;
}

template <class Weights>
class TiledPanel {
 public:
  TiledPanel(const PanelTask& task, const Rows& rows)
      : task_(task), rows_(rows), scratch_(*reinterpret_cast<TiledScratch*>(task.scratch)), weights_(*task.segment),
        num_blocks_((task.num_rows + TILE_ROWS - 1) / TILE_ROWS), group_halves_(static_cast<size_t>(rows.block_rows) * GROUP),
        factor_(task.segment->scales == RS_DENSE_BF16 ? 1.0f : power_of_two(16 - task.segment->exponent)) {
    const size_t tile_bytes = Weights::STRIDE * static_cast<size_t>(rows.num_groups);
    packed_[0] = task.segment->tiles + tile_bytes * 2 * static_cast<size_t>(task.panel);
    packed_[1] = packed_[0] + tile_bytes;
  }

  void run() {
    shape_tiles(num_blocks_ == 1 ? task_.num_rows : TILE_ROWS);
    if (num_blocks_ == 1) {
      for (int side = 0; side < 2; ++side) multiply_few(side);
    } else {
      const int span = num_blocks_ < FEW_BLOCKS ? SPAN_OF_FEW : MAX_SPAN;
      const int num_spans = (rows_.num_groups + span - 1) / span;
      for (int index = 0; index < num_spans; ++index)
        multiply_span(rows_.num_groups * index / num_spans, rows_.num_groups * (index + 1) / num_spans);
    }
    write();
  }

 private:
  const uint16_t* inputs(int block, int group) const { return rows_.dense + rows_.place(task_.first_row + block * TILE_ROWS, group) * GROUP; }

  RS_INLINE void unpack(const Weights& weights, int side, int group, uint8_t* tile) const {
    const uint8_t* packed = packed_[side] + Weights::STRIDE * static_cast<size_t>(group);
    for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(packed + PREFETCH_BYTES + line);
    weights.unpack(packed, tile);
  }

  // One block of rows: its products are made while the next group is unpacked.
  void multiply_few(int side) {
    const Weights weights = weights_;  // a copy, which no store can change
    const int num_groups = rows_.num_groups;
    const uint16_t* rows = inputs(0, 0);
    _tile_zero(4);
    unpack(weights, side, 0, scratch_.ring[0]);
    for (int group = 0; group < num_groups; ++group, rows += group_halves_) {
      if (group + 1 < num_groups) unpack(weights, side, group + 1, scratch_.ring[(group + 1) % RING]);
      settle_memory(&scratch_);
      _tile_loadd(0, rows, 64);
      _tile_loadd(2, scratch_.ring[group % RING], 64);
      _tile_dpbf16ps(4, 0, 2);
    }
    _tile_stored(4, scratch_.sums[0][side], 64);
    settle_memory(&scratch_);
  }

  void multiply_span(int first, int last) {
    const Weights weights = weights_;
    for (int side = 0; side < 2; ++side)
      for (int group = first; group < last; ++group) unpack(weights, side, group, scratch_.weights[group - first][side]);
    settle_memory(&scratch_);
    int block = 0;
    for (; block + 1 < num_blocks_; block += 2) multiply_pair(block, first, last);
    if (block < num_blocks_) multiply_single(block, first, last);
    settle_memory(&scratch_);
  }

  // Inputs pass by the first-level cache, where the weights are to stay.
  RS_INLINE void multiply_pair(int block, int first, int last) {
    auto& sums = scratch_.sums;
    if (first == 0) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
    } else {
      _tile_loadd(4, sums[block][0], 64);
      _tile_loadd(5, sums[block][1], 64);
      _tile_loadd(6, sums[block + 1][0], 64);
      _tile_loadd(7, sums[block + 1][1], 64);
    }
    const uint16_t *upper = inputs(block, first), *lower = inputs(block + 1, first);
    for (int group = 0; group < last - first; ++group, upper += group_halves_, lower += group_halves_) {
      _tile_stream_loadd(0, upper, 64);
      _tile_loadd(2, scratch_.weights[group][0], 64);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, scratch_.weights[group][1], 64);
      _tile_dpbf16ps(5, 0, 3);
      _tile_stream_loadd(1, lower, 64);
      _tile_dpbf16ps(6, 1, 2);
      _tile_dpbf16ps(7, 1, 3);
    }
    _tile_stored(4, sums[block][0], 64);
    _tile_stored(5, sums[block][1], 64);
    _tile_stored(6, sums[block + 1][0], 64);
    _tile_stored(7, sums[block + 1][1], 64);
  }

  RS_INLINE void multiply_single(int block, int first, int last) {
    auto& sums = scratch_.sums[block];
    if (first == 0) {
      _tile_zero(4);
      _tile_zero(5);
    } else {
      _tile_loadd(4, sums[0], 64);
      _tile_loadd(5, sums[1], 64);
    }
    const uint16_t* rows = inputs(block, first);
    for (int group = 0; group < last - first; ++group, rows += group_halves_) {
      _tile_stream_loadd(0, rows, 64);
      _tile_loadd(2, scratch_.weights[group][0], 64);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, scratch_.weights[group][1], 64);
      _tile_dpbf16ps(5, 0, 3);
    }
    _tile_stored(4, sums[0], 64);
    _tile_stored(5, sums[1], 64);
  }

  void write() const {
    for (int row = 0; row < task_.num_rows; ++row)
      for (int side = 0; side < 2; ++side)
        write_outputs(task_, task_.output + task_.output_stride * row, side,
                      load<Floats>(scratch_.sums[row / TILE_ROWS][side][row % TILE_ROWS]) * splat(factor_));
  }

  const PanelTask& task_;
  const Rows& rows_;
  TiledScratch& scratch_;
  const Weights weights_;
  const int num_blocks_;
  const size_t group_halves_;  // from a block's group to its next one
  const float factor_;
  const uint8_t* packed_[2];
};

template <class Weights>
void run_panel(const PanelTask& task, const Rows& rows) {
  TiledPanel<Weights>(task, rows).run();
}

}  // namespace

void begin_call() { rows_of_linears = 0; }

void linear_panel(const PanelTask& task, const Rows& rows) {
  const bool is_narrow = task.segment->code_bits == 4;
  switch (task.segment->scales) {
    case RS_CENTRED_F16: return is_narrow ? run_panel<Unpacker<4, RS_CENTRED_F16>>(task, rows) : run_panel<Unpacker<8, RS_CENTRED_F16>>(task, rows);
    case RS_AFFINE_F16: return is_narrow ? run_panel<Unpacker<4, RS_AFFINE_F16>>(task, rows) : run_panel<Unpacker<8, RS_AFFINE_F16>>(task, rows);
    case RS_AFFINE_F32: return is_narrow ? run_panel<Unpacker<4, RS_AFFINE_F32>>(task, rows) : run_panel<Unpacker<8, RS_AFFINE_F32>>(task, rows);
    default: return run_panel<Copier>(task, rows);
  }
}

}  // namespace RS_LEVEL

#endif
