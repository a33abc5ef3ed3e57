// How packed weights become tiles of bfloat16: 32 inputs of 16 outputs at a time.
#pragma once

#include "linear.h"

#if defined(__AMX_BF16__)

namespace RS_LEVEL {
namespace {

constexpr size_t TILE_BYTES = 1024;

// A group of 32 inputs of a packed tile, to bfloat16: weights times 2^(e - 112), with an exponent e for each output.
// Codes are shifted to the upper bits of a float16's fraction, which makes them subnormal numbers, as fast as others;
// `rs_pack` chose e such that d makes up for that. Products d * u + m are rounded to float16, and from there a shift
// by three bits, rounded, leads to bfloat16: its bias is larger by 112. What is subnormal counts as zero: weights below
// 1/1024 of the largest d of their output, of eight bits below 1/64. That is less than what the largest weights are
// rounded by, but much of a group whose d is that small a part of another's.
template <int BITS, int SCALES>
class Unpacker {
 public:
  static constexpr size_t HEAD = head_bytes(SCALES), STRIDE = code_bytes(BITS) + scale_bytes(SCALES);

  Unpacker(const rs_segment& segment, const uint8_t* tile)
      : exponents_(_mm512_loadu_ps(tile)),
        minus_centre_(_mm512_set1_ph(static_cast<_Float16>(static_cast<float>(-segment.centre) / static_cast<float>(1 << code_exponent(BITS))))) {
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    twice_ = (__m512i)(lane << 16 | lane);
    twice_m_ = (__m512i)(lane << 16 | lane | 0x00100010);
    const __m512 of_codes = _mm512_add_ps(exponents_, _mm512_set1_ps(code_exponent(BITS)));
    d_factors_ = _mm512_scalef_ps(_mm512_set1_ps(1.0f), of_codes);
    m_factors_ = _mm512_scalef_ps(_mm512_set1_ps(1.0f), exponents_);
    d_exponents_ = in_both_halves(of_codes);
    m_exponents_ = in_both_halves(exponents_);
  }

  // What sums are to be multiplied with.
  RS_INLINE Floats factors() const {
    return (Floats)_mm512_scalef_ps(_mm512_set1_ps(1.0f / TILED_INPUT_FACTOR), _mm512_sub_ps(_mm512_set1_ps(112.0f), exponents_));
  }

  RS_INLINE void unpack(const uint8_t* packed, uint8_t* tile) const {
    const uint8_t* scales = packed + code_bytes(BITS);
    __m512h d, m;
    if constexpr (SCALES == RS_AFFINE_F32) {
      d = widened(scales, d_factors_);
      m = widened(scales + 64, m_factors_);
    } else if constexpr (SCALES == RS_AFFINE_F16) {
      const __m512i both = _mm512_loadu_si512(scales);
      d = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_, both), d_exponents_);
      m = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_m_, both), m_exponents_);
    } else {
      const __m512i own = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)scales));
      d = _mm512_scalef_ph((__m512h)_mm512_permutexvar_epi16(twice_, own), d_exponents_);
      m = _mm512_mul_ph(d, minus_centre_);
    }
    unpack_codes(packed, tile, d, m);
  }

 private:
  static RS_INLINE void unpack_codes(const uint8_t* packed, uint8_t* tile, __m512h d, __m512h m) {
#pragma GCC unroll 8
    for (int step = 0; step < BITS; ++step) {
      __m512i words = _mm512_loadu_si512(packed + 64 * step);
      asm("" : "+v"(words));  // or it is loaded anew for every use
      if constexpr (BITS == 4) {
        const __m512i place = _mm512_set1_epi16(0x03c0);
        store_row(tile, 4 * step, _mm512_and_si512(_mm512_slli_epi16(words, 6), place), d, m);
        store_row(tile, 4 * step + 1, _mm512_and_si512(_mm512_slli_epi16(words, 2), place), d, m);
        store_row(tile, 4 * step + 2, _mm512_and_si512(_mm512_srli_epi16(words, 2), place), d, m);
        store_row(tile, 4 * step + 3, _mm512_and_si512(_mm512_srli_epi16(words, 6), place), d, m);
      } else {
        const __m512i place = _mm512_set1_epi16(0x03fc);
        store_row(tile, 4 * (step % 4) + step / 4, _mm512_and_si512(_mm512_slli_epi16(words, 2), place), d, m);
        store_row(tile, 4 * (step % 4) + step / 4 + 2, _mm512_and_si512(_mm512_srli_epi16(words, 6), place), d, m);
      }
    }
  }

  // Sixteen numbers as float16, each for an output's two inputs.
  RS_INLINE __m512h in_both_halves(__m512 numbers) const {
    const __m256i halves = _mm512_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (__m512h)_mm512_permutexvar_epi16(twice_, _mm512_castsi256_si512(halves));
  }

  RS_INLINE __m512h widened(const uint8_t* scales, __m512 factors) const {
    return in_both_halves(_mm512_mul_ps(_mm512_loadu_ps(scales), factors));
  }

  static RS_INLINE void store_row(uint8_t* tile, int row, __m512i codes, __m512h d, __m512h m) {
    const __m512i weights = (__m512i)_mm512_fmadd_ph((__m512h)codes, d, m);
    const __m512i shifted = _mm512_mulhrs_epi16(weights, _mm512_set1_epi16(1 << 12));  // rounded, by three bits
    // A negative number's shift has filled its exponent with ones.
    _mm512_store_si512(tile + 64 * row, _mm512_and_si512(shifted, _mm512_set1_epi16(static_cast<short>(0x8fff))));
  }

  __m512i twice_, twice_m_;
  __m512 exponents_, d_factors_, m_factors_;
  __m512h d_exponents_, m_exponents_, minus_centre_;
};

// Dense weights are packed as a tile takes them.
struct Copier {
  static constexpr size_t HEAD = 0, STRIDE = TILE_BYTES;
  Copier(const rs_segment&, const uint8_t*) {}
  RS_INLINE Floats factors() const { return splat(1.0f / TILED_INPUT_FACTOR); }
  RS_INLINE void unpack(const uint8_t* packed, uint8_t* tile) const {
#pragma GCC unroll 16
    for (int row = 0; row < TILE_ROWS; ++row) _mm512_store_si512(tile + 64 * row, _mm512_loadu_si512(packed + 64 * row));
  }
};

}  // namespace
}  // namespace RS_LEVEL

#endif
