// Linear maps by packed weights: one panel of 32 outputs for a block of rows at a time.
//
// A row's sums run over the groups in ascending order, whatever rows are computed beside it: sums
// of codes are exact integers, and all floating-point steps are the same for every block of rows.
#include "amx.h"
#include "linear.h"

namespace RS_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int MAX_BLOCK_ROWS = 6;  // 2 x 6 integer and 2 x 6 float sums, in 32 registers
constexpr int MAX_DENSE_ROWS = 4;  // four float sums a row
#else
constexpr int MAX_BLOCK_ROWS = 2;  // a vector of 16 lanes takes two registers or more
constexpr int MAX_DENSE_ROWS = 2;
#endif

template <int BITS, int SCALES, int ROWS>
void affine_block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
  constexpr size_t STRIDE = code_bytes(BITS) + scale_bytes(SCALES);
  const size_t row_size = static_cast<size_t>(rows.num_groups) * GROUP;
  const uint8_t* packed[2];
  packed[0] = task.segment->tiles + STRIDE * static_cast<size_t>(rows.num_groups) * 2 * static_cast<size_t>(task.panel);
  packed[1] = packed[0] + STRIDE * static_cast<size_t>(rows.num_groups);
  const int8_t* codes = rows.codes + row_size * static_cast<size_t>(row);
  size_t place = static_cast<size_t>(rows.num_groups) * static_cast<size_t>(row);
  for (int r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = Floats{};

  for (int group = 0; group < rows.num_groups; ++group, ++place, codes += GROUP) {
    Ints dots[ROWS][2];
    for (int r = 0; r < ROWS; ++r) {
      const int32_t start = SCALES == RS_CENTRED_F16
          ? -task.segment->centre * rows.sums[place + static_cast<size_t>(r * rows.num_groups)] : 0;
      dots[r][0] = dots[r][1] = splat(start);
    }
#pragma GCC unroll 8
    for (int step = 0; step < GROUP / 4; ++step) {
      const Bytes left = codes_at<BITS>(packed[0], step), right = codes_at<BITS>(packed[1], step);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const int8_t* four = codes + row_size * static_cast<size_t>(r) + 4 * step;
        dots[r][0] = dot_codes(dots[r][0], left, four);
        dots[r][1] = dot_codes(dots[r][1], right, four);
      }
    }
    for (int side = 0; side < 2; ++side) {
      const uint8_t* scales = packed[side] + code_bytes(BITS);
      const Floats d = scales_at<SCALES>(scales, 0);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const size_t at = place + static_cast<size_t>(r * rows.num_groups);
        sums[r][side] = multiply_add(to_floats(dots[r][side]), d * splat(rows.scales[at]), sums[r][side]);
        if constexpr (SCALES != RS_CENTRED_F16)
          sums[r][side] = multiply_add(scales_at<SCALES>(scales, 1), splat(rows.offsets[at]), sums[r][side]);
      }
      packed[side] += STRIDE;
    }
  }
}

// Two chains of sums for each output, even and odd pairs of inputs: one would wait for itself.
template <int ROWS>
void dense_block(const PanelTask& task, const Rows& rows, int row, Floats (&sums)[ROWS][2]) {
  const int num_pairs = rows.num_groups * GROUP / 2;
  const size_t row_size = static_cast<size_t>(rows.num_groups) * GROUP;
  const uint8_t* left = task.segment->tiles + 64 * static_cast<size_t>(num_pairs) * 2 * static_cast<size_t>(task.panel);
  const uint8_t* right = left + 64 * static_cast<size_t>(num_pairs);
  const uint16_t* values = rows.dense + row_size * static_cast<size_t>(row);
  Floats chains[ROWS][2][2] = {};
  for (int pair = 0; pair < num_pairs; pair += 2) {
#pragma GCC unroll 2
    for (int chain = 0; chain < 2; ++chain) {
      const Words left_words = load<Words>(left + 64 * (pair + chain)), right_words = load<Words>(right + 64 * (pair + chain));
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const Words two = splat_word(values + row_size * static_cast<size_t>(r) + 2 * (pair + chain));
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
    write_outputs(task, task.output + task.output_stride * (row - task.first_row + r), sums[r][0], sums[r][1]);
}

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

template <int BITS, int SCALES>
void run_affine(const PanelTask& task, const Rows& rows) {
  const int num_tiled = tiled_rows<BITS, SCALES>(task, rows);
  run_rows<Affine<BITS, SCALES>>(task, rows, task.first_row + num_tiled, task.num_rows - num_tiled);
}

}  // namespace

void linear_panel(const PanelTask& task, const Rows& rows) {
  const bool is_narrow = task.segment->code_bits == 4;
  switch (task.segment->scales) {
    case RS_CENTRED_F16: return is_narrow ? run_affine<4, RS_CENTRED_F16>(task, rows) : run_affine<8, RS_CENTRED_F16>(task, rows);
    case RS_AFFINE_F16: return is_narrow ? run_affine<4, RS_AFFINE_F16>(task, rows) : run_affine<8, RS_AFFINE_F16>(task, rows);
    case RS_AFFINE_F32: return is_narrow ? run_affine<4, RS_AFFINE_F32>(task, rows) : run_affine<8, RS_AFFINE_F32>(task, rows);
    default: return run_rows<Dense>(task, rows, task.first_row, task.num_rows);
  }
}

}  // namespace RS_LEVEL
