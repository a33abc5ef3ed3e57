// Sixteen lanes of arithmetic, the same on every instruction set.
//
// Every operation is compiled once per instruction set, each time in a namespace of its own
// (RS_LEVEL): nothing here may be shared between those, or a machine would run another's code.
// The compiler's vector types do most of the work; intrinsics stand where they cannot.
//
// Whether a product and a sum are rounded once or twice is said by calling `multiply_add`, never
// left to the optimiser: a row's result must not depend on how many rows are computed together.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define RS_INLINE inline __attribute__((always_inline))

namespace RS_LEVEL {
namespace {

constexpr int LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int8_t Codes __attribute__((vector_size(16)));

template <class Vector>
RS_INLINE Vector load(const void* from) {
  Vector value;
  memcpy(&value, from, sizeof value);
  return value;
}

template <class Vector>
RS_INLINE void store(void* to, const Vector& value) {
  memcpy(to, &value, sizeof value);
}

// `count` floats, zeros behind them.
RS_INLINE Floats load_some(const float* from, int count) {
  if (count >= LANES) return load<Floats>(from);
  float values[LANES] = {};
  if (count > 0) memcpy(values, from, sizeof(float) * static_cast<size_t>(count));
  return load<Floats>(values);
}

RS_INLINE void store_some(float* to, const Floats& value, int count) {
  if (count >= LANES) return store(to, value);
  memcpy(to, &value, sizeof(float) * static_cast<size_t>(count));
}

// Adding to a vector of zeros, the usual short form, would cost the addition: -0 + 0 is not -0.
RS_INLINE Floats splat(float v) { return Floats{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }
RS_INLINE Ints splat(int32_t value) { return Ints{} + value; }
RS_INLINE Floats to_floats(const Ints& value) { return __builtin_convertvector(value, Floats); }

RS_INLINE Floats multiply_add(const Floats& a, const Floats& b, const Floats& sum) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#else
  return a * b + sum;
#endif
}

// Where one is NaN, the second.
RS_INLINE Floats larger(const Floats& a, const Floats& b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

RS_INLINE float largest(Floats value) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)value);
#else
  float result = value[0];
  for (int lane = 1; lane < LANES; ++lane) result = value[lane] > result ? value[lane] : result;
  return result;
#endif
}

RS_INLINE float sum_of(Floats value) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)value);
#else
  float lanes[LANES];
  store(lanes, value);
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
#endif
}

RS_INLINE int32_t sum_of(const Ints& value) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)value);
#else
  int32_t result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += value[lane];
  return result;
#endif
}

// To the nearest integer, halves to the even one; for magnitudes below 2^22.
RS_INLINE Floats rounded(const Floats& value) {
#if defined(__AVX512F__)
  return (Floats)_mm512_roundscale_ps((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: its last bit is worth one
  return (value + magic) - magic;
#endif
}

// e^x; exactly 0 below -87, exactly 1 at 0. Relative error below 2e-7.
// The polynomial is the Taylor series on [-ln 2 / 2, ln 2 / 2].
RS_INLINE Floats exponential(const Floats& x) {
  const Floats clamped = larger(x < splat(88.0f) ? x : splat(88.0f), splat(-87.0f));
  const Floats twos = rounded(clamped * splat(1.44269504f));
  Floats rest = multiply_add(twos, splat(-0.693359375f), clamped);
  rest = multiply_add(twos, splat(2.12194440e-4f), rest);
  Floats power = splat(1.0f / 720);
  power = multiply_add(power, rest, splat(1.0f / 120));
  power = multiply_add(power, rest, splat(1.0f / 24));
  power = multiply_add(power, rest, splat(1.0f / 6));
  power = multiply_add(power, rest, splat(0.5f));
  power = multiply_add(power, rest, splat(1.0f));
  power = multiply_add(power, rest, splat(1.0f));
  const Ints scale = (__builtin_convertvector(twos, Ints) + 127) << 23;
  return x < splat(-87.0f) ? Floats{} : power * (Floats)scale;
}

// 2^x for x up to 126; 0 for -infinity, exactly 1 at 0. Relative error below 4e-6.
// The polynomial is the one of its degree with the least relative error on [0, 1] of those that are 1 at 0.
RS_INLINE Floats power_of_two(const Floats& x) {
#if defined(__AVX512F__)
  const Floats rest = (Floats)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // 0 for -infinity
#else
  const Floats bounded = larger(x, splat(-200.0f));  // -infinity has no fraction
  const Floats nearest = rounded(bounded);
  const Floats whole = nearest - (nearest > bounded ? splat(1.0f) : Floats{});
  const Floats rest = bounded - whole;
#endif
  Floats power = splat(0.0134266855f);
  power = multiply_add(power, rest, splat(0.0522424722f));
  power = multiply_add(power, rest, splat(0.241280206f));
  power = multiply_add(power, rest, splat(0.693044845f));
  power = multiply_add(power, rest, splat(1.0f));
#if defined(__AVX512F__)
  return (Floats)_mm512_scalef_ps((__m512)power, (__m512)x);  // takes the floor of x
#else
  const Floats result = power * (Floats)((__builtin_convertvector(larger(whole, splat(-126.0f)), Ints) + 127) << 23);
  return x <= splat(-126.0f) ? Floats{} : result;
#endif
}

// About 1 / x, for x of 1 to 2^127. Relative error below 4e-7.
RS_INLINE Floats inverse(const Floats& x) {
#if defined(__AVX512F__)
  const Floats rough = (Floats)_mm512_rcp14_ps((__m512)x);
  return rough * multiply_add(-x, rough, splat(2.0f));
#else
  return splat(1.0f) / x;
#endif
}

// x / (1 + e^-x), and NaN for NaN. Relative error below 7e-6 from -87 on; below, the result is less than 2e-36 off.
RS_INLINE Floats silu(const Floats& x) {
  const Floats power = x * splat(-1.44269504f);
  return x * inverse(splat(1.0f) + power_of_two(power < splat(126.0f) ? power : splat(126.0f)));
}

// float16 to float32: shift the bits into place, and let one product mend the exponent's bias,
// subnormal numbers included. Infinities and NaN do not occur in scales.
RS_INLINE Floats from_float16(const void* from) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps((__m256i)load<Halves>(from));
#else
  const Words bits = __builtin_convertvector(load<Halves>(from), Words);
  const Floats magnitude = (Floats)((bits & 0x7fff) << 13) * splat(0x1p112f);
  return (Floats)((Words)magnitude | (bits & 0x8000) << 16);
#endif
}

// float32 to bfloat16, to nearest even. NaN do not occur.
RS_INLINE Halves to_bfloat16(const Floats& value) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)value);
#else
  const Words bits = (Words)value;
  return __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Halves);
#endif
}

RS_INLINE Floats from_bfloat16(const Halves& value) {
  return (Floats)(__builtin_convertvector(value, Words) << 16);
}

// sum + the two products of each lane's pair of bfloat16, low half first.
RS_INLINE Floats dot_pairs(const Floats& sum, const Words& a, const Words& b) {
#if defined(__AVX512BF16__)
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  const Floats low = multiply_add((Floats)(a << 16), (Floats)(b << 16), sum);
  return multiply_add((Floats)(a & 0xffff0000), (Floats)(b & 0xffff0000), low);
#endif
}

RS_INLINE Words splat_word(const void* from) { return Words{} + load<uint32_t>(from); }

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
// Products of unsigned 4-bit and signed 8-bit numbers: pairs of them fit 16 bits.
RS_INLINE __m256i dot_nibbles(__m256i codes, __m256i activations) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, activations), _mm256_set1_epi16(1));
}

// Pairs of 8-bit products would not fit, so high and low nibbles are multiplied apart.
RS_INLINE __m256i dot_bytes(__m256i codes, __m256i activations) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low_bits);
  const __m256i low = _mm256_and_si256(codes, low_bits);
  return _mm256_add_epi32(_mm256_slli_epi32(dot_nibbles(high, activations), 4), dot_nibbles(low, activations));
}
#endif

// sum + the four products of each lane's unsigned codes and the same four signed activations: exact.
RS_INLINE Ints dot_codes(const Ints& sum, const Bytes& codes, const void* activations) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(load<int32_t>(activations)));
#elif defined(__AVX2__)
  const __m256i four = _mm256_set1_epi32(load<int32_t>(activations));
  __m256i halves[2];
  store(halves, codes);
  halves[0] = dot_bytes(halves[0], four);
  halves[1] = dot_bytes(halves[1], four);
  return sum + load<Ints>(halves);
#else
  const int8_t* four = static_cast<const int8_t*>(activations);
  const Words words = (Words)codes;
  Ints result = sum;
  for (int byte = 0; byte < 4; ++byte) result += (Ints)(words >> (8 * byte) & 0xff) * four[byte];
  return result;
#endif
}

}  // namespace
}  // namespace RS_LEVEL
