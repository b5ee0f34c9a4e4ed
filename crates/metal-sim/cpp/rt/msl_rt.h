// Runtime interface of the software Metal device: what the shim (metal_stdlib) needs from the scheduler.
//
// One worker is one OS thread's machine. It lives in a region aligned to its own size, with the stacks of all fibres in
// the upper half, so that a kernel finds its worker and its thread index from its stack pointer alone: no thread-local
// storage, whose static block a process with many loaded kernel libraries would exhaust.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#define MSL_AI inline __attribute__((always_inline))

namespace msl {

constexpr unsigned MAX_THREADS = 1024, MAX_BUFFERS = 31, MAX_SIMDGROUPS = MAX_THREADS / 32;
#ifdef MSL_CHECK
constexpr unsigned STACK_BITS = 16;  // reports are formatted on the fibre's stack
#else
constexpr unsigned STACK_BITS = 15;
#endif
constexpr uintptr_t STACK = uintptr_t(1) << STACK_BITS, STACKS = MAX_THREADS * STACK, REGION = 2 * STACKS;
constexpr uint32_t ARENA = 256 << 10;

struct U3 {
  unsigned x, y, z;
};
struct Worker;
struct Simdgroup;
typedef void (*Resolve)(Simdgroup*, uint32_t lanes);
typedef void (*Thunk)(void* const* buf, const Worker*, unsigned tid);

// One row per kernel, emitted by the rewriter.
struct KernelDesc {
  const char* name;
  Thunk thunk;
  const char* args;      // "index:name:type:kind:access" per buffer, separated by blanks
  unsigned line;         // in the MSL source
  unsigned max_threads;  // [[max_total_threads_per_threadgroup]], 0 if absent
  unsigned uses_sync;    // may reach a barrier or a simd operation
};

// One product of 8x8 matrices that its lanes have asked for.
struct MatrixProduct {
  alignas(64) float a[8][8], b[8][8];
  float* sum[32];  // each lane's two elements, to be added to
};
constexpr unsigned MATRIX_QUEUE = 16;

struct Simdgroup {
  uint32_t alive, ready, fresh;  // lanes not returned / able to run / able to run and not yet started
  uint32_t wait_simd, wait_barrier;
  uint32_t barrier_flags;
  bool simd_mixed, barrier_mixed;
  uint64_t simd_site, barrier_site;
  Resolve simd_fn;
  uint64_t site[32];  // valid while simd_mixed
  Resolve fn[32];
  // What the lanes publish to each other. No lane publishes again before all have read.
  alignas(64) unsigned char slot[32][32];
  uint32_t key[32];
  alignas(64) unsigned char result[32];
  // Products wait here until one result is needed: a switch between lanes costs more than a product.
  uint8_t products[32];    // asked for, by lane
  uint32_t products_done;  // batches, from 1
  uint64_t products_site;  // of the latest
  MatrixProduct queue[MATRIX_QUEUE];
};

struct TgSlot {
  uint64_t generation;
  void* p;
};

struct Check;

// What a run did; as the host has it.
struct Counters {
  uint64_t barriers, matrix_ops;
  uint64_t threadgroup_bytes_read, threadgroup_bytes_written;
};

struct Worker {
  void* sp[MAX_THREADS];  // of suspended fibres
  void* main_sp;
  void* const* buf;
  const KernelDesc* kernel;
  U3 group, groups, threads;
  unsigned thread_count, simdgroup_count, remaining;
  bool abort;
  uint64_t generation;  // of threadgroup memory: one per threadgroup run
  TgSlot* slots;
  size_t slot_count;
  char* arena;
  uint32_t arena_used, group_bytes;  // with gaps / as the GPU counts them
  char* reports;                     // NUL-separated
  size_t reports_len, reports_cap, report_count;
  Counters counters;
  Check* check;
  Simdgroup sg[MAX_SIMDGROUPS];
};

MSL_AI uintptr_t stack_pointer() {
  uintptr_t sp;
#if defined(__x86_64__)
  asm("movq %%rsp, %0" : "=r"(sp));
#elif defined(__aarch64__)
  asm("mov %0, sp" : "=r"(sp));
#else
#error "the software Metal device needs x86-64 or aarch64"
#endif
  return sp;
}
MSL_AI Worker* worker() { return (Worker*)(stack_pointer() & ~(REGION - 1)); }
MSL_AI unsigned thread_index() { return (stack_pointer() >> STACK_BITS) & (MAX_THREADS - 1); }
MSL_AI unsigned my_lane() { return thread_index() & 31; }
MSL_AI Simdgroup* my_simdgroup() { return &worker()->sg[thread_index() >> 5]; }

// Blocks until the active lanes of this simdgroup are all here; the last to arrive runs `fn` for all.
void simd_wait(uint64_t site, Resolve fn);
void barrier_wait(uint64_t site, int flags);
void simd_barrier_wait(uint64_t site, int flags);
// Carries out the products that this simdgroup's lanes have asked for.
void matrix_products(Simdgroup* g, uint32_t lanes);
void* tg_alloc(Worker* w, int id, size_t bytes, size_t align, const char* name, int line);

#ifdef MSL_CHECK
constexpr bool CHECKED = true;
#define MSL_NOINSTR __attribute__((no_sanitize("thread"), noinline))
#else
constexpr bool CHECKED = false;
#define MSL_NOINSTR inline __attribute__((always_inline))
#endif

// A `threadgroup T name[N];` declaration inside a kernel becomes a reference to this.
template <class T, int ID>
MSL_NOINSTR T* tgvar(const char* name, int line) {
  Worker* w = worker();
  TgSlot& s = w->slots[ID];
  if (__builtin_expect(s.generation != w->generation, 0)) return (T*)tg_alloc(w, ID, sizeof(T), alignof(T), name, line);
  return (T*)s.p;
}

// The row of a lane's two elements of a matrix, and the column of the first.
MSL_AI unsigned matrix_row(unsigned lane) { return (lane / 4 & 4) + lane / 2 % 4; }
MSL_AI unsigned matrix_column(unsigned lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }

// Kernel attributes, computed where a thunk asks for them.
MSL_AI U3 position_in_group(const Worker* w, unsigned tid) {
  unsigned sx = w->threads.x, sy = w->threads.y;
  if (sx == w->thread_count) return {tid, 0, 0};
  unsigned row = tid / sx;
  return {tid - row * sx, row % sy, row / sy};
}
MSL_AI U3 position_in_grid(const Worker* w, unsigned tid) {
  U3 p = position_in_group(w, tid);
  return {w->group.x * w->threads.x + p.x, w->group.y * w->threads.y + p.y, w->group.z * w->threads.z + p.z};
}
MSL_AI U3 threads_per_grid(const Worker* w) {
  return {w->groups.x * w->threads.x, w->groups.y * w->threads.y, w->groups.z * w->threads.z};
}
}  // namespace msl
