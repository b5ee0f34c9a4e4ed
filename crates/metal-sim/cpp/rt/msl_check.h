// What the scheduler tells the checking runtime; nothing in a build without MSL_CHECK.
#pragma once
#include "msl_rt.h"

namespace msl {
// Adds one report "MESSAGE" to the worker; program counters are written as pc+0x1f and made into lines by the host.
void report(Worker* w, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void abort_group(Worker* w);

#ifdef MSL_CHECK
void check_group_begin(Worker* w);
void check_tgvar(Worker* w, void* p, size_t bytes, const char* name, int line);
void check_barrier(Worker* w, uint32_t flags);
void check_simd_barrier(Simdgroup* g, uint32_t lanes);
#else
MSL_AI void check_group_begin(Worker*) {}
MSL_AI void check_tgvar(Worker*, void*, size_t, const char*, int) {}
MSL_AI void check_barrier(Worker*, uint32_t) {}
MSL_AI void check_simd_barrier(Simdgroup*, uint32_t) {}
#endif
}  // namespace msl
