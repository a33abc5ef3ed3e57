// One row of logits: which token is drawn, how probable a token is.
//
// The stages and the draw are those of engine/execution/sampler.py, which is their reference: the
// first token in vocabulary order whose cumulative weight exceeds the row's uniform number times
// the sum of all. Nothing is sorted: a stage that keeps the best candidates finds the last of them
// by counting keys, twelve bits at a time.
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vector.h"

namespace RS_LEVEL {
namespace {

constexpr float LEAST = -std::numeric_limits<float>::infinity();

RS_INLINE bool any(const Ints& mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  uint64_t words[8], all = 0;
  store(words, mask);
  for (const uint64_t word : words) all |= word;
  return all != 0;
#endif
}

// Sixteen values from `at`; those beyond the row are minus infinity.
RS_INLINE Floats row_at(const float* logits, int size, int at) {
  if (at + LANES <= size) return load<Floats>(logits + at);
  Floats values = splat(LEAST);
  memcpy(&values, logits + at, sizeof(float) * static_cast<size_t>(size - at));
  return values;
}

float largest_of(const float* logits, int size) {
  Floats best[4] = {splat(LEAST), splat(LEAST), splat(LEAST), splat(LEAST)};
  int at = 0;
  for (; at + 4 * LANES <= size; at += 4 * LANES)
    for (int chain = 0; chain < 4; ++chain) best[chain] = larger(load<Floats>(logits + at + chain * LANES), best[chain]);
  for (; at < size; at += LANES) best[0] = larger(row_at(logits, size, at), best[0]);
  return largest(larger(larger(best[0], best[1]), larger(best[2], best[3])));
}

// Where none is, as among what are no numbers, the first of all.
int64_t first_at_least(const float* logits, int size, float value) {
  int at = 0;
  while (at + LANES <= size && !any(load<Floats>(logits + at) >= splat(value))) at += LANES;
  while (at < size && !(logits[at] >= value)) ++at;
  return at < size ? at : 0;
}

// Sums float32 values in float64.
struct WideSum {
  typedef double Doubles __attribute__((vector_size(64)));
  typedef float Half __attribute__((vector_size(32)));
  Doubles low{}, high{};

  RS_INLINE void add(const Floats& values) {
    Half halves[2];
    store(halves, values);
    low += __builtin_convertvector(halves[0], Doubles);
    high += __builtin_convertvector(halves[1], Doubles);
  }

  RS_INLINE double total() const {
    double lanes[8], sum = 0;
    store(lanes, low + high);
    for (const double lane : lanes) sum += lane;
    return sum;
  }
};

// Philox4x32-10 on the row's seed, position and choice; `lane` takes the first or the last two words.
double uniform_of(const rs_draw& draw, int lane) {
  uint32_t c[4] = {static_cast<uint32_t>(draw.position), static_cast<uint32_t>(draw.choice), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(draw.seed), static_cast<uint32_t>(draw.seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * c[0], second = uint64_t{0xCD9E8D57} * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(second >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(second),
                              static_cast<uint32_t>(first >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(first)};
    memcpy(c, next, sizeof c);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  const uint64_t bits = (uint64_t{c[2 * lane]} >> 5) * (1 << 26) + (c[2 * lane + 1] >> 6);
  return static_cast<double>(bits) / 9007199254740992.0;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The key of the last candidate that is kept when the shares of all before it do not reach `target`.
uint32_t last_key(Candidate* candidates, int count, double target, double* buckets) {
  constexpr int SHIFTS[] = {20, 8, 0}, NUM_BITS[] = {12, 12, 8};
  uint32_t found = 0;
  for (int level = 0; level < 3; ++level) {
    const uint32_t mask = (1u << NUM_BITS[level]) - 1;
    memset(buckets, 0, sizeof(double) * (mask + 1));
    for (int i = 0; i < count; ++i) buckets[candidates[i].key >> SHIFTS[level] & mask] += static_cast<double>(candidates[i].share);
    uint32_t bucket = 0, last = 0;
    for (; bucket <= mask; ++bucket) {
      if (buckets[bucket] <= 0.0) continue;
      last = bucket;
      if (buckets[bucket] >= target) break;
      target -= buckets[bucket];
    }
    found |= last << SHIFTS[level];
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      candidates[kept] = candidates[i];
      kept += (candidates[i].key >> SHIFTS[level] & mask) == last;
    }
    count = kept;
  }
  return found;
}

// A row's candidates: logits less the largest over the temperature, and e to the power of these.
// A token that is not kept has weight 0 and minus infinity.
class Row {
 public:
  Row(int vocab_size, uint8_t* scratch) : num_blocks_(num_sum_blocks(vocab_size)), size_(num_blocks_ * SUM_BLOCK) {
    const size_t size = static_cast<size_t>(size_);
    sums_ = reinterpret_cast<double*>(scratch);
    buckets_ = sums_ + num_blocks_;
    maxima_ = reinterpret_cast<float*>(buckets_ + NUM_BUCKETS);
    scaled_ = maxima_ + 2 * num_blocks_;
    weights_ = scaled_ + size;
    candidates_ = reinterpret_cast<Candidate*>(weights_ + size);
  }

  void fill(const float* logits, int vocab_size, float largest_logit, float temperature) {
    const Floats top = splat(largest_logit), divisor = splat(temperature);
    for (int block = 0; block < num_blocks_; ++block) {
      WideSum sum;
      Floats best = splat(LEAST);
      for (int at = block * SUM_BLOCK; at < (block + 1) * SUM_BLOCK; at += LANES) {
        const Floats scaled = at < vocab_size ? (row_at(logits, vocab_size, at) - top) / divisor : splat(LEAST);
        const Floats weight = exponential(scaled);
        store(scaled_ + at, scaled);
        store(weights_ + at, weight);
        best = larger(scaled, best);
        sum.add(weight);
      }
      sums_[block] = sum.total();
      maxima_[block] = largest(best);
    }
  }

  void keep_top_k(int top_k) {
    if (top_k >= size_) return;
    float* maxima = maxima_ + num_blocks_;  // the k-th largest of some is no larger than that of all
    memcpy(maxima, maxima_, sizeof(float) * static_cast<size_t>(num_blocks_));
    float floor = LEAST;
    if (top_k <= num_blocks_) {
      std::nth_element(maxima, maxima + top_k - 1, maxima + num_blocks_, [](float a, float b) { return a > b; });
      floor = maxima[top_k - 1];
    }
    const int count = collect([&](int at) { return load<Floats>(scaled_ + at) >= splat(floor); },
                              [&](int i) { return Candidate{bits_of(-scaled_[i]) & 0x7fffffff, 1.0f}; });
    keep_from(-float_of(last_key(candidates_, count, top_k, buckets_)));
  }

  void keep_top_p(float top_p) {
    const double total = sum();
    // All candidates below this weight together do not make up what may be left out.
    const float floor = static_cast<float>((1.0 - static_cast<double>(top_p)) * total / size_ * 0.999);
    const int count = collect([&](int at) { return load<Floats>(weights_ + at) > splat(floor); },
                              [&](int i) { return Candidate{bits_of(-scaled_[i]) & 0x7fffffff, weights_[i]}; });
    keep_from(-float_of(last_key(candidates_, count, static_cast<double>(top_p) * total, buckets_)));
  }

  void keep_min_p(float min_p) { keep_from(std::log(min_p)); }

  // With p = weight / sum, the surprise less the entropy is the mean of `scaled` less its own.
  void keep_typical(float typical_p) {
    const double total = sum();
    WideSum moments;
    for (int at = 0; at < size_; at += LANES) {
      const Floats weight = load<Floats>(weights_ + at);
      moments.add(weight > Floats{} ? weight * load<Floats>(scaled_ + at) : Floats{});
    }
    const float mean = static_cast<float>(moments.total() / total);
    const int count = collect([&](int at) { return load<Floats>(weights_ + at) > Floats{}; },
                              [&](int i) { return Candidate{bits_of(std::fabs(scaled_[i] - mean)), weights_[i]}; });
    const Floats farthest = splat(float_of(last_key(candidates_, count, static_cast<double>(typical_p) * total, buckets_)));
    keep([&](const Floats& scaled, const Floats&) {
      const Floats distance = scaled - splat(mean);
      return larger(distance, -distance) <= farthest;
    });
  }

  void exclude_top_choices(float threshold) {
    const float bound = static_cast<float>(static_cast<double>(threshold) * sum());
    float least = std::numeric_limits<float>::infinity();
    int count = 0;
    for (int at = 0; at < size_; at += LANES) {
      if (!any(load<Floats>(weights_ + at) >= splat(bound))) continue;
      for (int i = at; i < at + LANES; ++i) {
        if (!(weights_[i] >= bound)) continue;
        least = std::min(least, weights_[i]);
        ++count;
      }
    }
    if (count > 1) keep([&](const Floats&, const Floats& weight) { return weight <= splat(least); });
  }

  // The first token whose cumulative weight exceeds uniform * sum: never one of weight 0.
  int64_t token_at(double uniform) const {
    const double total = sum();
    const double target = std::min(uniform * total, std::nextafter(total, 0.0));
    double before = 0;
    int block = 0, last = 0;
    for (int i = 0; i < num_blocks_; ++i) {
      if (sums_[i] <= 0.0) continue;
      block = i;
      if (before + sums_[i] > target) break;
      before += sums_[i];
    }
    for (int i = block * SUM_BLOCK; i < (block + 1) * SUM_BLOCK; ++i) {
      if (weights_[i] <= 0.0f) continue;
      last = i;
      before += static_cast<double>(weights_[i]);
      if (before > target) break;
    }
    return last;
  }

 private:
  double sum() const {
    double total = 0;
    for (int block = 0; block < num_blocks_; ++block) total += sums_[block];
    return total;
  }

  template <class Wanted, class Make>
  int collect(const Wanted& wanted, const Make& make) {
    int count = 0;
    for (int at = 0; at < size_; at += LANES) {
      const Ints mask = wanted(at);
      if (!any(mask)) continue;
      for (int lane = 0; lane < LANES; ++lane) {
        candidates_[count] = make(at + lane);
        count += mask[lane] != 0;
      }
    }
    return count;
  }

  void keep_from(float threshold) {
    keep([&](const Floats& scaled, const Floats&) { return scaled >= splat(threshold); });
  }

  template <class Kept>
  void keep(const Kept& kept) {
    for (int block = 0; block < num_blocks_; ++block) {
      if (sums_[block] <= 0.0) continue;
      WideSum sum;
      for (int at = block * SUM_BLOCK; at < (block + 1) * SUM_BLOCK; at += LANES) {
        const Floats scaled = load<Floats>(scaled_ + at), weight = load<Floats>(weights_ + at);
        const Ints mask = kept(scaled, weight);
        const Floats left = mask ? weight : Floats{};
        store(scaled_ + at, mask ? scaled : splat(LEAST));
        store(weights_ + at, left);
        sum.add(left);
      }
      sums_[block] = sum.total();
    }
  }

  int num_blocks_, size_;
  double* sums_;
  double* buckets_;
  float* maxima_;
  float* scaled_;
  float* weights_;
  Candidate* candidates_;
};

int64_t draw(const float* logits, int vocab_size, const rs_draw& draw, uint8_t* scratch) {
  const float top = largest_of(logits, vocab_size);
  // Without a distribution, because nothing or no number is left of the logits, a row is as a greedy one.
  if (draw.temperature == 0.0f || !std::isfinite(top)) return first_at_least(logits, vocab_size, top);
  Row row(vocab_size, scratch);
  row.fill(logits, vocab_size, top, draw.temperature);
  if (draw.top_k > 0) row.keep_top_k(draw.top_k);
  if (draw.top_p < 1.0f) row.keep_top_p(draw.top_p);
  if (draw.min_p > 0.0f) row.keep_min_p(draw.min_p);
  if (draw.typical_p < 1.0f) row.keep_typical(draw.typical_p);
  if (draw.xtc_probability > 0.0f && uniform_of(draw, 1) < static_cast<double>(draw.xtc_probability))
    row.exclude_top_choices(draw.xtc_threshold);
  return row.token_at(uniform_of(draw, 0));
}

struct Entry {
  float logit;
  int64_t token_id;
  bool operator<(const Entry& other) const { return logit != other.logit ? logit > other.logit : token_id < other.token_id; }
};

// The best `count` entries, in order: a heap whose front is the worst of them.
void find_best(const float* logits, int size, int count, Entry* best) {
  int held = 0;
  for (int at = 0; at < size; at += LANES) {
    if (held == count && !any(row_at(logits, size, at) > splat(best[0].logit))) continue;
    for (int i = at; i < std::min(size, at + LANES); ++i) {
      if (held < count) {
        best[held++] = {logits[i], i};
      } else if (logits[i] > best[0].logit) {
        std::pop_heap(best, best + count);
        best[count - 1] = {logits[i], i};
      } else {
        continue;
      }
      std::push_heap(best, best + held);
    }
  }
  std::sort_heap(best, best + held);
}

void score(const float* logits, int vocab_size, int64_t token_id, int num_top, const RowScore& told, uint8_t* scratch) {
  const float top = largest_of(logits, vocab_size), chosen = logits[token_id];
  WideSum sum;
  Ints above{};
  for (int at = 0; at < vocab_size; at += LANES) {
    const Floats values = row_at(logits, vocab_size, at);
    sum.add(exponential(values - splat(top)));
    above -= values > splat(chosen);
  }
  const float log_total = static_cast<float>(static_cast<double>(top) + std::log(sum.total()));
  *told.logprob = chosen - log_total;
  *told.rank = sum_of(above) + 1;
  if (num_top == 0) return;
  Entry* best = reinterpret_cast<Entry*>(scratch);
  find_best(logits, vocab_size, num_top, best);
  for (int i = 0; i < num_top; ++i) {
    told.top_ids[i] = best[i].token_id;
    told.top_logprobs[i] = best[i].logit - log_total;
  }
}

}  // namespace

extern const Sampling sampling;
const Sampling sampling{draw, score};

}  // namespace RS_LEVEL
