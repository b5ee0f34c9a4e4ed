// Runs kernels of features.metal and bad.metal through the C interface of the runtime, for a machine that is only
// emulated. Prints one line for each failure; exits with their number.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "msl_rt.h"

using namespace msl;
extern "C" {
const KernelDesc* msl_kernel(uint32_t);
Worker* msl_worker_new();
void msl_worker_free(Worker*);
uint64_t msl_run(Worker*, uint32_t, void* const*, const uint32_t*, const uint32_t*, uint64_t, uint64_t);
size_t msl_take_reports(Worker*, const char**);
}

static int failures;
static void expect(const char* what, int at, double got, double want) {
  if (std::fabs(got - want) < 1e-4) return;
  if (failures++ < 10) printf("%s[%d]: %g instead of %g\n", what, at, got, want);
}
static uint64_t run(Worker* w, const char* name, void* const* buf, uint32_t groups, uint32_t x, uint32_t y = 1) {
  uint32_t grid[3] = {groups, 1, 1}, threads[3] = {x, y, 1};
  for (uint32_t i = 0; msl_kernel(i); i++)
    if (!strcmp(msl_kernel(i)->name, name)) return msl_run(w, i, buf, grid, threads, 0, groups);
  printf("no kernel %s\n", name);
  failures++;
  return 0;
}

int main() {
  Worker* w = msl_worker_new();
  float a[256], o[64 * 16];
  for (int i = 0; i < 256; i++) a[i] = (float)(i * 37 % 64) / 32 - 1;

  void* shuffles[] = {a, o};
  run(w, "shuffles", shuffles, 1, 64);
  for (int t = 0; t < 64; t++) {
    double sum = 0, prefix = 0;
    for (int l = 0; l < 32; l++) sum += a[t / 32 * 32 + l], prefix += l < t % 32 ? a[t / 32 * 32 + l] : 0;
    expect("simd_sum", t, o[t * 16], sum);
    expect("simd_prefix_exclusive_sum", t, o[t * 16 + 4], prefix);
    expect("simd_shuffle_xor", t, o[t * 16 + 5], a[t ^ 5]);
    expect("simd_broadcast", t, o[t * 16 + 8], a[t / 32 * 32 + 7]);
  }

  void* groups[] = {a, o};
  run(w, "tgdims", groups, 1, 8, 4);
  double total = 0;
  for (int i = 0; i < 32; i++) total += a[i];
  for (int i = 0; i < 32; i++) expect("tgdims", i, o[i], total + 31 + 32);

  float b[64];
  for (int i = 0; i < 64; i++) b[i] = (float)(i % 7) - 3;
  void* product[] = {a, b, o};
  run(w, "mma_t", product, 1, 32);
  for (int row = 0; row < 8; row++)
    for (int column = 0; column < 8; column++) {
      double sum = 1;
      for (int k = 0; k < 8; k++) sum += a[(row + 8) * 16 + k + 8] * b[column * 8 + k];
      expect("mma_t", row * 8 + column, o[column * 8 + row], 2 * sum);
    }
  const char* reports;
  if (msl_take_reports(w, &reports)) failures++, printf("%s\n", reports);
  msl_worker_free(w);
  return failures;
}
