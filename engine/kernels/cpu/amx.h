#pragma once
#include "linear.h"
namespace RS_LEVEL {
namespace {
template <int BITS, int SCALES>
int tiled_rows(const PanelTask&, const Rows&) { return 0; }
}  // namespace
}  // namespace RS_LEVEL
