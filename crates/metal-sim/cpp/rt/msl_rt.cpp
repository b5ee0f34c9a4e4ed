// Scheduler of the software Metal device: a worker runs one threadgroup at a time, one fibre per MSL thread.
#include "msl_rt.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "msl_check.h"

extern "C" {
extern const msl::KernelDesc msl_kernels[];
extern const unsigned msl_kernel_count;
extern const unsigned msl_tgvar_count;
// Saves the callee-saved registers and the stack pointer to *save, and resumes what `load` was saved as.
void msl_switch(void** save, void* load);
// The same, but calls `entry` on the empty stack that ends at `top`; `entry` never returns.
void msl_start(void** save, void* top, void (*entry)());
}

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl msl_switch
.hidden msl_switch
.type msl_switch,@function
msl_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
.size msl_switch,.-msl_switch
.p2align 4
.globl msl_start
.hidden msl_start
.type msl_start,@function
msl_start:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  xorl %ebp, %ebp
  callq *%rdx
  ud2
.size msl_start,.-msl_start
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl msl_switch
.hidden msl_switch
.type msl_switch,%function
msl_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size msl_switch,.-msl_switch
.p2align 4
.globl msl_start
.hidden msl_start
.type msl_start,%function
msl_start:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  mov x29, xzr
  blr x2
  brk #1
.size msl_start,.-msl_start
)");
#endif

namespace msl {
static MSL_AI int first(uint32_t m) { return __builtin_ctz(m); }
static MSL_AI unsigned line(uint64_t site) { return (unsigned)(site >> 12); }

void report(Worker* w, const char* format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  int n = vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  if (n < 0) return;
  w->report_count++;
  size_t len = (n < (int)sizeof text ? (size_t)n : sizeof text - 1) + 1;
  for (size_t i = 0; i < w->reports_len; i += strlen(w->reports + i) + 1)
    if (!strcmp(w->reports + i, text)) return;
  if (w->reports_len + len > 32768) return;
  if (w->reports_len + len > w->reports_cap) {
    size_t cap = w->reports_cap * 2 + 1024;
    char* p = (char*)realloc(w->reports, cap);
    if (!p) return;
    w->reports = p, w->reports_cap = cap;
  }
  memcpy(w->reports + w->reports_len, text, len);
  w->reports_len += len;
}

static void fibre_main();
// 32 KiB-spaced stacks would share cache sets: their tops are staggered.
static MSL_AI void* stack_top(Worker* w, unsigned tid) {
  return (void*)((uintptr_t)w + STACKS + (tid + 1) * STACK - (tid % 61) * 64);
}
static MSL_AI void run_lane(Worker* w, void** save, Simdgroup* g, unsigned lane) {
  uint32_t bit = 1u << lane;
  unsigned tid = (unsigned)(g - w->sg) * 32 + lane;
  if (g->fresh & bit) {
    g->fresh &= ~bit;
    msl_start(save, stack_top(w, tid), fibre_main);
  } else {
    msl_switch(save, w->sp[tid]);
  }
}
static MSL_AI void suspend_to(Worker* w, unsigned me, Simdgroup* g, unsigned lane) {
  if ((unsigned)(g - w->sg) * 32 + lane != me) run_lane(w, &w->sp[me], g, lane);
}
static void to_main(Worker* w, unsigned me) { msl_switch(&w->sp[me], w->main_sp); }

void abort_group(Worker* w) {
  w->abort = true;
  to_main(w, thread_index());
  __builtin_unreachable();
}

// All lanes of a simdgroup are blocked or gone: completes the operation of those that wait at one simd call.
static void resolve(Worker* w, Simdgroup* g) {
  uint32_t lanes = g->wait_simd;
  Resolve fn = g->simd_fn;
  if (__builtin_expect(g->simd_mixed, 0)) {  // reconverge at the earliest source position
    uint64_t best = ~0ull, last = 0;
    for (uint32_t a = lanes; a; a &= a - 1) {
      uint64_t s = g->site[first(a)];
      if (s < best) best = s;
      if (s > last) last = s;
    }
    uint32_t at_best = 0;
    for (uint32_t a = lanes; a; a &= a - 1)
      if (g->site[first(a)] == best) at_best |= a & -a;
    report(w, "lanes of one simdgroup wait at different simd operations, at lines %u and %u: divergent", line(best),
           line(last));
    lanes = at_best;
    fn = g->fn[first(lanes)];
  }
  fn(g, lanes);
  g->wait_simd &= ~lanes;
  g->ready |= lanes;
  if (g->wait_simd) {
    uint32_t rest = g->wait_simd;
    g->simd_site = g->site[first(rest)], g->simd_fn = g->fn[first(rest)], g->simd_mixed = false;
    for (uint32_t a = rest; a; a &= a - 1) g->simd_mixed |= g->site[first(a)] != g->simd_site;
  } else {
    g->simd_mixed = false;
  }
}

static void release_barrier(Worker* w) {
  uint64_t site = ~0ull, other = 0;
  uint32_t flags = 0;
  unsigned waiting = 0;
  bool mixed = false;
  for (unsigned i = 0; i < w->simdgroup_count; i++) {
    Simdgroup* g = &w->sg[i];
    if (!g->wait_barrier) continue;
    waiting += __builtin_popcount(g->wait_barrier);
    flags |= g->barrier_flags;
    mixed |= g->barrier_mixed;
    if (g->barrier_site < site) site = g->barrier_site;
    if (g->barrier_site > other) other = g->barrier_site;
  }
  if (mixed || other != site)
    report(w,
           "threads of one threadgroup wait at different threadgroup_barriers, at line %u and elsewhere: divergent "
           "barrier",
           line(site));
  if (waiting != w->thread_count)
    report(w, "threadgroup_barrier at line %u reached by %u of %u threads; the others have returned", line(site),
           waiting, w->thread_count);
  w->counters.barriers++;
  check_barrier(w, flags);
  for (unsigned i = 0; i < w->simdgroup_count; i++) {
    Simdgroup* g = &w->sg[i];
    g->ready |= g->wait_barrier;
    g->wait_barrier = 0;
  }
}

// From a fibre that cannot go on (blocked or finished): chooses what runs next.
static __attribute__((noinline)) void next(Worker* w, unsigned me) {
  Simdgroup* g = &w->sg[me >> 5];
  for (;;) {
    if (w->abort) return to_main(w, me);
    if (g->ready) return suspend_to(w, me, g, first(g->ready));
    if (g->wait_simd) {
      resolve(w, g);
      continue;
    }
    // this simdgroup is at the barrier or finished: another one
    Simdgroup* other = nullptr;
    unsigned at = (unsigned)(g - w->sg);
    for (unsigned i = 1; i < w->simdgroup_count && !other; i++) {
      unsigned j = at + i < w->simdgroup_count ? at + i : at + i - w->simdgroup_count;
      if (w->sg[j].ready | w->sg[j].wait_simd) other = &w->sg[j];
    }
    if (other) {
      g = other;
      continue;
    }
    if (w->remaining == 0) return to_main(w, me);
    release_barrier(w);
    g = &w->sg[0];
  }
}

static __attribute__((noinline)) void record_mixed(Simdgroup* g) {
  for (uint32_t a = g->wait_simd; a; a &= a - 1) g->site[first(a)] = g->simd_site, g->fn[first(a)] = g->simd_fn;
  g->simd_mixed = true;
}
void simd_wait(uint64_t site, Resolve fn) {
  Worker* w = worker();
  unsigned me = thread_index(), lane = me & 31;
  Simdgroup* g = &w->sg[me >> 5];
  if (!g->wait_simd) {
    g->simd_site = site, g->simd_fn = fn;
  } else if (__builtin_expect(g->simd_mixed || g->simd_site != site, 0)) {
    if (!g->simd_mixed) record_mixed(g);
    g->site[lane] = site, g->fn[lane] = fn;
  }
  g->wait_simd |= 1u << lane;
  if ((g->ready &= ~(1u << lane)) && !w->abort) {
    unsigned to = first(g->ready);
    return run_lane(w, &w->sp[me], g, to);
  }
  next(w, me);
}
void barrier_wait(uint64_t site, int flags) {
  Worker* w = worker();
  unsigned me = thread_index(), lane = me & 31;
  Simdgroup* g = &w->sg[me >> 5];
  if (!g->wait_barrier) {
    g->barrier_site = site, g->barrier_mixed = false, g->barrier_flags = (uint32_t)flags;
  } else if (g->barrier_site != site) {
    g->barrier_mixed = true;
  }
  g->wait_barrier |= 1u << lane;
  if ((g->ready &= ~(1u << lane)) && !w->abort) {
    unsigned to = first(g->ready);
    return run_lane(w, &w->sp[me], g, to);
  }
  next(w, me);
}
static void resolve_simd_barrier(Simdgroup* g, uint32_t lanes) { check_simd_barrier(g, lanes); }
void simd_barrier_wait(uint64_t site, int flags) {
  my_simdgroup()->key[my_lane()] = (uint32_t)flags;
  simd_wait(site, resolve_simd_barrier);
}

void matrix_products(Simdgroup* g, uint32_t lanes) {
  typedef float Row __attribute__((ext_vector_type(8)));
  typedef float Pair __attribute__((ext_vector_type(2)));
  unsigned count = g->products[first(lanes)], active = 0;
  uint8_t lane[32], place[32];
  for (uint32_t m = lanes; m; m &= m - 1, active++) {
    lane[active] = (uint8_t)first(m);
    place[active] = (uint8_t)(matrix_row(first(m)) * 8 + matrix_column(first(m)));
  }
  for (unsigned n = 0; n < count; n++) {
    MatrixProduct& p = g->queue[n];
    alignas(64) float sum[64];
    for (unsigned i = 0; i < active; i++) *(Pair*)(sum + place[i]) = *(Pair*)p.sum[lane[i]];
    const Row* b = (const Row*)p.b;
    for (int i = 0; i < 8; i++) {
      Row c = ((Row*)sum)[i];
      for (int k = 0; k < 8; k++) c += p.a[i][k] * b[k];
      ((Row*)sum)[i] = c;
    }
    for (unsigned i = 0; i < active; i++) *(Pair*)p.sum[lane[i]] = *(Pair*)(sum + place[i]);
  }
  for (unsigned i = 0; i < active; i++) g->products[lane[i]] = 0;
  g->products_done++;
  worker()->counters.matrix_ops += count;
}

static void fibre_main() {
  Worker* w = worker();
  unsigned me = thread_index();
  w->kernel->thunk(w->buf, w, me);
  Simdgroup* g = &w->sg[me >> 5];
  uint32_t bit = 1u << (me & 31);
  g->ready &= ~bit, g->alive &= ~bit;
  w->remaining--;
  next(w, me);
  __builtin_trap();
}
// No barrier and no simd operation in reach: one fibre runs all threads in a loop.
static void loop_main() {
  Worker* w = worker();
  for (unsigned tid = 0; tid < w->thread_count; tid++) w->kernel->thunk(w->buf, w, tid);
  to_main(w, 0);
  __builtin_trap();
}

void* tg_alloc(Worker* w, int id, size_t bytes, size_t align, const char* name, int line) {
  size_t gap = CHECKED ? 64 : 0;
  if (align < 16) align = 16;
  size_t at = (w->arena_used + gap + align - 1) & ~(align - 1);
  if (at + bytes + gap > ARENA) {
    report(w, "threadgroup memory is over 32768 bytes: %zu with %s, line %d", at + bytes, name, line);
    abort_group(w);
  }
  w->arena_used = (uint32_t)(at + bytes);
  w->group_bytes += (uint32_t)((bytes + 15) & ~size_t(15));
  if (w->group_bytes > 32768)
    report(w, "threadgroup memory is over 32768 bytes: %u with %s, line %d", w->group_bytes, name, line);
  void* p = w->arena + at;
  memset(p, 0xFF, bytes);  // NaN: a read before the first write shows
  w->slots[id] = {w->generation, p};
  check_tgvar(w, p, bytes, name, line);
  return p;
}

static void run_group(Worker* w) {
  unsigned n = w->thread_count;
  w->remaining = n, w->arena_used = w->group_bytes = 0, w->abort = false;
  w->generation++;
  check_group_begin(w);
  if (!CHECKED && !w->kernel->uses_sync) return msl_start(&w->main_sp, stack_top(w, 0), loop_main);
  for (unsigned i = 0; i < w->simdgroup_count; i++) {
    Simdgroup& g = w->sg[i];
    unsigned lanes = i * 32 + 32 <= n ? 32 : n - i * 32;
    g.alive = g.ready = g.fresh = lanes == 32 ? ~0u : (1u << lanes) - 1;
    g.wait_simd = g.wait_barrier = 0;
    g.simd_mixed = g.barrier_mixed = false;
    memset(g.products, 0, sizeof g.products);
    g.products_done++;
  }
  run_lane(w, &w->main_sp, &w->sg[0], 0);
  if (w->abort) w->remaining = 0;
}
}  // namespace msl

using namespace msl;
#define MSL_EXPORT __attribute__((visibility("default")))
extern "C" {
// The layout of everything the host and another library's worker rely on.
MSL_EXPORT uint32_t msl_abi() { return 1; }
MSL_EXPORT uint32_t msl_is_checked() { return CHECKED; }
MSL_EXPORT const KernelDesc* msl_kernel(uint32_t i) { return i < msl_kernel_count ? &msl_kernels[i] : nullptr; }

// A worker serves every library of the same ABI and mode, one call at a time; null if there is no memory.
MSL_EXPORT Worker* msl_worker_new() {
  size_t reserve = 2 * REGION;
  char* mem = (char*)mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mem == MAP_FAILED) return nullptr;
  char* base = (char*)(((uintptr_t)mem + REGION - 1) & ~(REGION - 1));
  if (base > mem) munmap(mem, base - mem);
  if (base + REGION < mem + reserve) munmap(base + REGION, mem + reserve - base - REGION);
  size_t head = (sizeof(Worker) + 64 + ARENA + 4095) & ~size_t(4095);
  if (mprotect(base, head, PROT_READ | PROT_WRITE) || mprotect(base + STACKS, STACKS, PROT_READ | PROT_WRITE)) {
    munmap(base, REGION);
    return nullptr;
  }
  madvise(base + STACKS, STACKS, MADV_HUGEPAGE);  // one page per fibre would thrash the TLB
  Worker* w = (Worker*)base;
  w->arena = base + ((sizeof(Worker) + 63) & ~size_t(63));
  return w;
}
#ifdef MSL_CHECK
void msl_check_free(Worker* w);
#endif
MSL_EXPORT void msl_worker_free(Worker* w) {
#ifdef MSL_CHECK
  msl_check_free(w);
#endif
  free(w->slots);
  free(w->reports);
  munmap(w, REGION);
}
// Runs threadgroups begin..end of a grid of `groups`. Returns the number of reports, repeated ones counted.
MSL_EXPORT uint64_t msl_run(Worker* w, uint32_t kernel, void* const* buf, const uint32_t* groups,
                            const uint32_t* threads, uint64_t begin, uint64_t end) {
  if (w->slot_count < msl_tgvar_count) {
    TgSlot* p = (TgSlot*)realloc(w->slots, msl_tgvar_count * sizeof(TgSlot));
    if (!p) abort();
    memset(p + w->slot_count, 0, (msl_tgvar_count - w->slot_count) * sizeof(TgSlot));
    w->slots = p, w->slot_count = msl_tgvar_count;
  }
  w->kernel = &msl_kernels[kernel];
  w->buf = buf;
  w->groups = {groups[0], groups[1], groups[2]};
  w->threads = {threads[0], threads[1], threads[2]};
  w->thread_count = threads[0] * threads[1] * threads[2];
  w->simdgroup_count = (w->thread_count + 31) / 32;
  w->report_count = 0;
  uint64_t row = groups[0], plane = row * groups[1];
  for (uint64_t i = begin; i < end; i++) {
    w->group = {(unsigned)(i % row), (unsigned)(i % plane / row), (unsigned)(i / plane)};
    run_group(w);
  }
  return w->report_count;
}
// The reports since the last call, each ended by a NUL.
MSL_EXPORT size_t msl_take_reports(Worker* w, const char** text) {
  size_t n = w->reports_len;
  *text = w->reports;
  w->reports_len = 0;
  return n;
}
}
