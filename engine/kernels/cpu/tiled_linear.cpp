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

float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  return load<float>(&bits);
}

// What a sum is to be multiplied with: see Unpacker and TILED_INPUT_FACTOR.
float factor_of(const rs_segment& segment) {
  return power_of_two((segment.scales == RS_DENSE_BF16 ? 0 : 112 - segment.exponent) - 64);
}
static_assert(TILED_INPUT_FACTOR == 0x1p64f);

// A group of 32 inputs of a packed tile, to bfloat16: weights times 2^(exponent - 112). Codes are taken as they
// stand in 16-bit words for float16, which makes them subnormal numbers, as fast as others; `rs_pack` chose the
// exponent such that d makes up for that. Products d * u + m are rounded to float16, and from there a shift by three
// bits, rounded, leads to bfloat16: its bias is larger by 112. What is subnormal counts as zero.
template <int BITS, int SCALES>
class Unpacker {
 public:
  static constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);

  explicit Unpacker(const rs_segment& segment)
      : d_factor_(_mm512_set1_ps(power_of_two(segment.exponent + code_exponent(BITS)))),
        m_factor_(_mm512_set1_ps(power_of_two(segment.exponent))),
        d_exponent_(_mm512_set1_ph(static_cast<_Float16>(segment.exponent + code_exponent(BITS)))),
        m_exponent_(_mm512_set1_ph(static_cast<_Float16>(segment.exponent))),
        minus_centre_(_mm512_set1_ph(static_cast<_Float16>(static_cast<float>(-segment.centre) * power_of_two(-code_exponent(BITS))))) {
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    twice_ = (__m512i)(lane << 16 | lane);
    twice_m_ = (__m512i)(lane << 16 | lane | 0x00100010);
  }

  RS_INLINE void unpack(const uint8_t* packed, uint8_t* tile) const {
    const uint8_t* scales = packed + code_bytes(BITS);
    __m512h d, m;
    if constexpr (SCALES == RS_AFFINE_F32) {
      d = widened(scales, d_factor_);
      m = widened(scales + 64, m_factor_);
    } else if constexpr (SCALES == RS_AFFINE_F16) {
      const __m512i both = _mm512_loadu_si512(scales);
      d = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_, both), d_exponent_);
      m = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_m_, both), m_exponent_);
    } else {
      const __m512i own = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)scales));
      d = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_, own), d_exponent_);
      m = _mm512_mul_ph(d, minus_centre_);
    }
    unpack_codes(packed, tile, d, m);
  }

 private:
  static RS_INLINE void unpack_codes(const uint8_t* packed, uint8_t* tile, __m512h d, __m512h m) {
    const __m512h sixteenth = _mm512_mul_ph(d, _mm512_set1_ph(static_cast<_Float16>(0.0625f)));
#pragma GCC unroll 8
    for (int step = 0; step < BITS; ++step) {
      __m512i words = _mm512_loadu_si512(packed + 64 * step);
      asm("" : "+v"(words));  // or it is loaded anew for every use
      if constexpr (BITS == 4) {
        const __m512i low = _mm512_set1_epi16(0x003c), high = _mm512_set1_epi16(0x03c0);
        const __m512i front = _mm512_slli_epi16(words, 2), back = _mm512_srli_epi16(words, 6);
        store_row(tile, 4 * step, _mm512_and_si512(front, low), d, m);
        store_row(tile, 4 * step + 1, _mm512_and_si512(front, high), sixteenth, m);
        store_row(tile, 4 * step + 2, _mm512_and_si512(back, low), d, m);
        store_row(tile, 4 * step + 3, _mm512_and_si512(back, high), sixteenth, m);
      } else {
        store_row(tile, 4 * (step % 4) + step / 4, _mm512_and_si512(words, _mm512_set1_epi16(0xff)), d, m);
        store_row(tile, 4 * (step % 4) + step / 4 + 2, _mm512_srli_epi16(words, 8), d, m);
      }
    }
  }

  RS_INLINE __m512h widened(const uint8_t* scales, __m512 factor) const {
    const __m256i halves = _mm512_cvtps_ph(_mm512_mul_ps(_mm512_loadu_ps(scales), factor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (__m512h)_mm512_permutexvar_epi16(twice_, _mm512_castsi256_si512(halves));
  }

  static RS_INLINE void store_row(uint8_t* tile, int row, __m512i codes, __m512h d, __m512h m) {
    const __m512i weights = (__m512i)_mm512_fmadd_ph((__m512h)codes, d, m);
    const __m512i shifted = _mm512_mulhrs_epi16(weights, _mm512_set1_epi16(1 << 12));  // rounded, by three bits
    // A negative number's shift has filled its exponent with ones.
    _mm512_store_si512(tile + 64 * row, _mm512_and_si512(shifted, _mm512_set1_epi16(static_cast<short>(0x8fff))));
  }

  __m512i twice_, twice_m_;
  __m512 d_factor_, m_factor_;
  __m512h d_exponent_, m_exponent_, minus_centre_;
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
        factor_(factor_of(*task.segment)) {
    const size_t tile_bytes = Weights::STRIDE * static_cast<size_t>(rows.num_groups);
    packed_[0] = task.segment->tiles + tile_bytes * 2 * static_cast<size_t>(task.panel);
    packed_[1] = packed_[0] + tile_bytes;
  }

  void run() {
    shape_tiles(TILE_ROWS);
    const int span = num_blocks_ < FEW_BLOCKS ? SPAN_OF_FEW : MAX_SPAN;
    const int num_spans = (rows_.num_groups + span - 1) / span;
    for (int index = 0; index < num_spans; ++index)
      multiply_span(rows_.num_groups * index / num_spans, rows_.num_groups * (index + 1) / num_spans);
    write();
  }

 private:
  const uint16_t* inputs(int block, int group) const { return rows_.dense + rows_.place(task_.first_row + block * TILE_ROWS, group) * GROUP; }

  RS_INLINE void unpack(const Weights& weights, int side, int group, uint8_t* tile) const {
    const uint8_t* packed = packed_[side] + Weights::STRIDE * static_cast<size_t>(group);
    for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(packed + PREFETCH_BYTES + line);
    weights.unpack(packed, tile);
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

// One block of rows, for the strips of one panel or two: weights come from as many places at once, which
// is what it takes to read memory at its speed, and rows are loaded once for all strips. A strip's product
// is made as many turns after its unpacking as there are other strips, when its stores have settled.
template <class Weights, int NUM_TASKS>
class FewRows {
  static constexpr int NUM_STRIPS = 2 * NUM_TASKS;

 public:
  FewRows(const PanelTask* tasks, const Rows& rows) : tasks_(tasks), rows_(rows), scratch_(*reinterpret_cast<TiledScratch*>(tasks->scratch)) {}

  void run() {
    const int num_groups = rows_.num_groups;
    const size_t tile_bytes = Weights::STRIDE * static_cast<size_t>(num_groups);
    const Weights first(*tasks_[0].segment), last(*tasks_[NUM_TASKS - 1].segment);
    const uint8_t *packed[NUM_STRIPS], *ahead[NUM_STRIPS];
    for (int strip = 0; strip < NUM_STRIPS; ++strip) {
      const PanelTask& task = tasks_[strip / 2];
      packed[strip] = task.segment->tiles + tile_bytes * (2 * static_cast<size_t>(task.panel) + static_cast<size_t>(strip % 2));
      ahead[strip] = task.ahead + tile_bytes * static_cast<size_t>(strip % 2);
    }
    const uint16_t* inputs = rows_.dense + rows_.place(tasks_->first_row, 0) * GROUP;
    const size_t group_halves = static_cast<size_t>(rows_.block_rows) * GROUP;
    shape_tiles(tasks_->num_rows);
    zero_sums();
    for (int group = 0; group < num_groups; ++group) {
      const size_t place = Weights::STRIDE * static_cast<size_t>(group);
#pragma GCC unroll 4
      for (int strip = 0; strip < NUM_STRIPS; ++strip) {
#pragma GCC unroll 8
        for (size_t line = 0; line < Weights::STRIDE; line += 64) __builtin_prefetch(ahead[strip] + place + line);
        (strip < 2 ? first : last).unpack(packed[strip] + place, scratch_.ring[strip]);
        settle_memory(&scratch_);
        if (strip == NUM_STRIPS - 1) {
          _tile_loadd(0, inputs + group_halves * static_cast<size_t>(group), 64);
          multiply(0);
        } else if (group > 0) {
          multiply(strip + 1);
        }
      }
    }
    for (int strip = 1; strip < NUM_STRIPS; ++strip) multiply(strip);
    write();
  }

 private:
  static RS_INLINE void zero_sums() {
    _tile_zero(4);
    _tile_zero(5);
    if constexpr (NUM_TASKS == 2) {
      _tile_zero(6);
      _tile_zero(7);
    }
  }

  RS_INLINE void multiply(int strip) {
    const uint8_t* tile = scratch_.ring[strip];
    switch (strip) {
      case 0: _tile_loadd(2, tile, 64); _tile_dpbf16ps(4, 0, 2); break;
      case 1: _tile_loadd(3, tile, 64); _tile_dpbf16ps(5, 0, 3); break;
      case 2: _tile_loadd(2, tile, 64); _tile_dpbf16ps(6, 0, 2); break;
      case 3: _tile_loadd(3, tile, 64); _tile_dpbf16ps(7, 0, 3); break;
    }
  }

  void write() {
    _tile_stored(4, scratch_.sums[0][0], 64);
    _tile_stored(5, scratch_.sums[0][1], 64);
    if constexpr (NUM_TASKS == 2) {
      _tile_stored(6, scratch_.sums[1][0], 64);
      _tile_stored(7, scratch_.sums[1][1], 64);
    }
    settle_memory(&scratch_);
    for (int strip = 0; strip < NUM_STRIPS; ++strip) write_strip(tasks_[strip / 2], strip % 2, scratch_.sums[strip / 2][strip % 2]);
  }

  static void write_strip(const PanelTask& task, int side, const float (&sums)[TILE_ROWS][TILE_OUTPUTS]) {
    const Floats factor = splat(factor_of(*task.segment));
    for (int row = 0; row < task.num_rows; ++row)
      write_outputs(task, task.output + task.output_stride * row, side, load<Floats>(sums[row]) * factor);
  }

  const PanelTask* tasks_;
  const Rows& rows_;
  TiledScratch& scratch_;
};

template <class Weights>
void run_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  if (tasks->num_rows > TILE_ROWS) {
    for (int index = 0; index < num_tasks; ++index) TiledPanel<Weights>(tasks[index], rows).run();
  } else if (num_tasks == 2) {
    FewRows<Weights, 2>(tasks, rows).run();
  } else {
    FewRows<Weights, 1>(tasks, rows).run();
  }
}

void linear_alike(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  const bool is_narrow = tasks->segment->code_bits == 4;
  switch (tasks->segment->scales) {
    case RS_CENTRED_F16: return is_narrow ? run_panels<Unpacker<4, RS_CENTRED_F16>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_CENTRED_F16>>(tasks, num_tasks, rows);
    case RS_AFFINE_F16: return is_narrow ? run_panels<Unpacker<4, RS_AFFINE_F16>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_AFFINE_F16>>(tasks, num_tasks, rows);
    case RS_AFFINE_F32: return is_narrow ? run_panels<Unpacker<4, RS_AFFINE_F32>>(tasks, num_tasks, rows) : run_panels<Unpacker<8, RS_AFFINE_F32>>(tasks, num_tasks, rows);
    default: return run_panels<Copier>(tasks, num_tasks, rows);
  }
}

}  // namespace

void begin_call() { rows_of_linears = 0; }

void linear_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  const rs_segment &first = *tasks[0].segment, &last = *tasks[num_tasks - 1].segment;
  if (first.scales == last.scales && first.code_bits == last.code_bits) return linear_alike(tasks, num_tasks, rows);
  for (int index = 0; index < num_tasks; ++index) linear_alike(tasks + index, 1, rows);
}

}  // namespace RS_LEVEL

#endif
