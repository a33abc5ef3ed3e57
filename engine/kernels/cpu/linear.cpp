// Linear maps by packed weights: one panel of 32 outputs for a block of rows at a time.
//
// A row's sums run over the groups in ascending order, whatever rows are computed beside it: sums
// of codes are exact integers, and all floating-point steps are the same for every block of rows.
#include "linear.h"

#if !defined(__AMX_BF16__)  // which has tiled_linear.cpp

namespace RS_LEVEL {

void prepare(const Rows& rows, int row, int first_group, const float* values, int count);
void silu_mul(const float* gate, const float* up, int size, float* output);

namespace {

#if defined(__AVX512F__)
constexpr int MAX_BLOCK_ROWS = 6;  // twelve integer and twelve float sums, in 32 registers
constexpr int MAX_DENSE_ROWS = 4;  // four float sums a row
#else
constexpr int MAX_BLOCK_ROWS = 2;  // a vector of 16 lanes takes two registers or more
constexpr int MAX_DENSE_ROWS = 2;
#endif

constexpr size_t PREFETCH_BYTES = 2048;

// What a few rows of one block need of a panel: two tiles' groups, the rows' codes, and where they are.
template <int BITS, int SCALES>
struct Cursor {
  static constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);
  const uint8_t* packed[2];
  const int8_t* codes;
  size_t block_rows;
  size_t place;

  Cursor(const PanelTask& task, const Rows& rows, int row) {
    const size_t tile_bytes = head_bytes(SCALES) + STRIDE * static_cast<size_t>(rows.num_groups);
    packed[0] = task.segment->tiles + tile_bytes * 2 * static_cast<size_t>(task.panel) + head_bytes(SCALES);
    packed[1] = packed[0] + tile_bytes;
    place = rows.place(row, 0);
    codes = rows.codes + place * CODE_BYTES;
    block_rows = static_cast<size_t>(rows.block_rows);
  }

  RS_INLINE void advance() {
    packed[0] += STRIDE;
    packed[1] += STRIDE;
    codes += CODE_BYTES * block_rows;
    place += block_rows;
  }
};

// Adds the products of a group's weights with the high or the low bytes of the rows' codes.
template <int BITS, int SCALES, int ROWS>
RS_INLINE void add_products(const Cursor<BITS, SCALES>& at, int first_byte, Ints (&dots)[ROWS][2]) {
#pragma GCC unroll 8
  for (int step = 0; step < GROUP / 4; ++step) {
    const Bytes left = codes_at<BITS>(at.packed[0], step), right = codes_at<BITS>(at.packed[1], step);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const int8_t* four = at.codes + CODE_BYTES * r + first_byte + 4 * step;
      dots[r][0] = dot_codes(dots[r][0], left, four);
      dots[r][1] = dot_codes(dots[r][1], right, four);
    }
  }
}

// The sums of a group's products: high bytes' times 16 and low bytes'. Of few rows each has a chain of
// its own, as the additions of one would wait for one another; of many rows there are chains enough.
template <int BITS, int SCALES, int ROWS>
RS_INLINE void sum_products(const Cursor<BITS, SCALES>& at, Ints (&dots)[ROWS][2]) {
  Ints low[ROWS][2] = {};
  Ints(&low_dots)[ROWS][2] = ROWS <= 2 ? low : dots;
  add_products(at, 0, dots);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
    dots[r][0] <<= LOW_BITS;
    dots[r][1] <<= LOW_BITS;
  }
  add_products(at, GROUP, low_dots);
#pragma GCC unroll 2
  for (int r = 0; r < ROWS && ROWS <= 2; ++r) {
    dots[r][0] += low[r][0];
    dots[r][1] += low[r][1];
  }
}

template <int BITS, int SCALES, int ROWS>
RS_INLINE void affine_block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
  const size_t num_groups = static_cast<size_t>(rows.num_groups);
  Cursor<BITS, SCALES> at(task, rows, row);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = Floats{};
  for (size_t group = 0; group < num_groups; ++group, at.advance()) {
    Ints dots[ROWS][2] = {};
    for (size_t line = 0; line < at.STRIDE; line += 64) {  // the hardware's own stops at every page
      __builtin_prefetch(at.packed[0] + PREFETCH_BYTES + line);
      __builtin_prefetch(at.packed[1] + PREFETCH_BYTES + line);
    }
    sum_products(at, dots);
#pragma GCC unroll 2
    for (int side = 0; side < 2; ++side) {
      const GroupScales<SCALES> scales(at.packed[side] + code_bytes(BITS));
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
        sums[r][side] = scales.add(sums[r][side], dots[r][side], rows, at.place + static_cast<size_t>(r), task.segment->centre);
    }
  }
}

// Two chains of sums for each output, even and odd pairs of inputs: one would wait for itself.
template <int ROWS>
void dense_block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
  const int num_pairs = rows.num_groups * GROUP / 2;
  const uint8_t* left = task.segment->tiles + 64 * static_cast<size_t>(num_pairs) * 2 * static_cast<size_t>(task.panel);
  const uint8_t* right = left + 64 * static_cast<size_t>(num_pairs);
  const uint16_t* values = rows.dense + GROUP * rows.place(row, 0);
  Floats chains[ROWS][2][2] = {};
  for (int pair = 0; pair < num_pairs; pair += 2) {
    const uint16_t* two_pairs = values + GROUP * static_cast<size_t>(pair / (GROUP / 2) * rows.block_rows) + 2 * (pair % (GROUP / 2));
#pragma GCC unroll 2
    for (int chain = 0; chain < 2; ++chain) {
      const Words left_words = load<Words>(left + 64 * (pair + chain)), right_words = load<Words>(right + 64 * (pair + chain));
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const Words two = splat_word(two_pairs + GROUP * r + 2 * chain);
        chains[r][0][chain] = dot_pairs(chains[r][0][chain], left_words, two);
        chains[r][1][chain] = dot_pairs(chains[r][1][chain], right_words, two);
      }
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int side = 0; side < 2; ++side) sums[r][side] = chains[r][side][0] + chains[r][side][1];
}

template <int BITS, int SCALES>
struct Affine {
  static constexpr int MAX_ROWS = MAX_BLOCK_ROWS;
  template <int ROWS>
  static RS_INLINE void block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
    affine_block<BITS, SCALES, ROWS>(task, rows, row, sums);
  }
};

struct Dense {
  static constexpr int MAX_ROWS = MAX_DENSE_ROWS;
  template <int ROWS>
  static RS_INLINE void block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
    dense_block<ROWS>(task, rows, row, sums);
  }
};

template <class Kernel, int ROWS>
void run_block(const PanelTask& task, const Rows& rows, int row) {
  Floats sums[ROWS][2];
  Kernel::template block<ROWS>(task, rows, row, sums);
  for (int r = 0; r < ROWS; ++r)
    for (int side = 0; side < 2; ++side)
      write_outputs(task, task.output + task.output_stride * (row - task.first_row + r), side, sums[r][side]);
}

// `num_rows` rows of one block.
template <class Kernel>
void run_rows(const PanelTask& task, const Rows& rows, int first_row, int num_rows) {
  const int num_blocks = (num_rows + Kernel::MAX_ROWS - 1) / Kernel::MAX_ROWS;
  for (int block = 0; block < num_blocks; ++block) {
    const int row = first_row + num_rows * block / num_blocks;
    switch (first_row + num_rows * (block + 1) / num_blocks - row) {
      case 1: run_block<Kernel, 1>(task, rows, row); break;
      case 2: run_block<Kernel, 2>(task, rows, row); break;
      case 3: if constexpr (Kernel::MAX_ROWS >= 3) run_block<Kernel, 3>(task, rows, row); break;
      case 4: if constexpr (Kernel::MAX_ROWS >= 4) run_block<Kernel, 4>(task, rows, row); break;
      case 5: if constexpr (Kernel::MAX_ROWS >= 5) run_block<Kernel, 5>(task, rows, row); break;
      case 6: if constexpr (Kernel::MAX_ROWS >= 6) run_block<Kernel, 6>(task, rows, row); break;
    }
  }
}

template <class Kernel>
void run_blocks(const PanelTask& task, const Rows& rows) {
  const int end = task.first_row + task.num_rows;
  for (int row = task.first_row; row < end; row += rows.block_rows)
    run_rows<Kernel>(task, rows, row, end - row < rows.block_rows ? end - row : rows.block_rows);
}

template <int BITS, int SCALES>
void run_affine(const PanelTask& task, const Rows& rows) {
  run_blocks<Affine<BITS, SCALES>>(task, rows);
}

void linear_panel(const PanelTask& task, const Rows& rows) {
  const bool is_narrow = task.segment->code_bits == 4;
  switch (task.segment->scales) {
    case RS_CENTRED_F16: return is_narrow ? run_affine<4, RS_CENTRED_F16>(task, rows) : run_affine<8, RS_CENTRED_F16>(task, rows);
    case RS_AFFINE_F16: return is_narrow ? run_affine<4, RS_AFFINE_F16>(task, rows) : run_affine<8, RS_AFFINE_F16>(task, rows);
    case RS_AFFINE_F32: return is_narrow ? run_affine<4, RS_AFFINE_F32>(task, rows) : run_affine<8, RS_AFFINE_F32>(task, rows);
    default: return run_blocks<Dense>(task, rows);
  }
}

}  // namespace

void begin_call() {}

void linear_panels(const PanelTask* tasks, int num_tasks, const Rows& rows) {
  for (int index = 0; index < num_tasks; ++index) linear_panel(tasks[index], rows);
}

void gated_panel(const PanelTask& gate, const PanelTask& up, const Rows& rows, const Rows& gated) {
  static_assert(2 * MAX_PANEL_ROWS * PANEL_OUTPUTS * sizeof(float) <= PANEL_SCRATCH_BYTES);
  PanelTask tasks[2] = {gate, up};
  for (int s = 0; s < 2; ++s) {
    tasks[s].output = reinterpret_cast<float*>(gate.scratch) + s * gate.num_rows * PANEL_OUTPUTS;
    tasks[s].output_stride = PANEL_OUTPUTS;
    linear_panel(tasks[s], rows);
  }
  const int first = gate.panel * PANEL_OUTPUTS, rest = gate.segment->out_size - first, width = rest < PANEL_OUTPUTS ? rest : PANEL_OUTPUTS;
  for (int row = 0; row < gate.num_rows; ++row) {
    float* values = tasks[0].output + row * PANEL_OUTPUTS;
    silu_mul(values, tasks[1].output + row * PANEL_OUTPUTS, width, values);
    prepare(gated, gate.first_row + row, gate.panel, values, width);
  }
}

}  // namespace RS_LEVEL

#endif
