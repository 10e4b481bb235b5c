// SPDX-License-Identifier: Apache-2.0
// The function align: rewrites a checkpoint so that its tensors are aligned.
#include <string>

#include "bindings/progress.h"
#include "bindings/pybind.h"
#include "tensorbundle/write/align.h"

namespace tensorbundle {
namespace {

// (slices, moved, bytes before, bytes after)
py::tuple Align(const std::string& source, const std::string& destination, uint64_t alignment,
                int threads, py::object callback) {
  const AlignPlan plan = [&] {
    const GilReleased released;
    return AlignPlan(source, alignment);
  }();
  Progress progress(std::move(callback), plan.bytes_to_copy());
  const AlignSummary summary = [&] {
    const GilReleased released;
    return plan.Write(destination, threads, [&](uint64_t bytes) { progress.Add(bytes); });
  }();
  progress.Finish();
  return py::make_tuple(summary.slices, summary.moved, summary.bytes_before, summary.bytes_after);
}

}  // namespace

void RegisterAlign(py::module_& module) { module.def("align", &Align); }

}  // namespace tensorbundle
