// The table of one instruction set's kernels.
#include "level.h"

namespace RS_LEVEL {

void prepare(const Rows& rows, int row, int first_group, const float* values, int count);
void norm(const float* hidden, const float* residual, const float* weight, float eps, int size, float* normed,
          float* total);
void silu_mul(const float* gate, const float* up, int size, float* output);
void begin_call();
void linear_panels(const PanelTask* tasks, int num_tasks, const Rows& rows);
void gated_panel(const PanelTask& gate, const PanelTask& up, const Rows& rows, const Rows& gated);
void rotate(float* head, const float* cos, const float* sin, int head_size);
void to_cache(const float* values, int num_heads, int head_size, int32_t format, uint8_t* cached);
void attend(const AttendTask& task);
void finish_attend(const AttendTask& task, int num_states);
int32_t read_all(const uint8_t* memory, size_t num_bytes);
int64_t multiply_codes(int num_rounds);

extern const Level level;
#if defined(__AMX_BF16__)
constexpr bool ONLY_BFLOAT16 = true;
constexpr int MAX_ROWS = MAX_TILED_ROWS;
#else
constexpr bool ONLY_BFLOAT16 = false;
constexpr int MAX_ROWS = MAX_PANEL_ROWS;
#endif

const Level level = {ONLY_BFLOAT16, MAX_ROWS, begin_call, prepare, norm, silu_mul, linear_panels, gated_panel, rotate, to_cache, attend, finish_attend, read_all, multiply_codes};

}  // namespace RS_LEVEL
