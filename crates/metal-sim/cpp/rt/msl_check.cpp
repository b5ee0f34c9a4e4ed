// Checked mode. Kernels are compiled with clang's -fsanitize=thread and parts of -fsanitize=undefined, whose runtimes
// are not linked: this file is the runtime. Every load and store of a kernel arrives here with its address and size.
#include "msl_check.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

namespace msl {
// One access, and how the barriers stood then.
struct Access {
  uint32_t who;  // (threadgroup << 10 | thread) + 1, without the threadgroup for threadgroup memory; 0: nobody
  uint32_t epoch, simd_epoch, pc : 31, atomic : 1;
  unsigned thread() const { return (who - 1) & 1023; }
  unsigned group() const { return (who - 1) >> 10; }
  bool same_simdgroup(const Access& o) const { return (who - 1) >> 5 == (o.who - 1) >> 5; }
  // Whether no barrier stands between this earlier access and `now`.
  bool unordered(const Access& now) const {
    if (!who || who == now.who) return false;
    if (group() != now.group()) return true;  // other threadgroups: never ordered within a dispatch
    return epoch >= now.epoch && !(same_simdgroup(now) && simd_epoch < now.simd_epoch);
  }
};
// Accesses that may share a byte with each other. Two stand for all: whoever has to be ordered after all of them and is
// not, is not ordered after one of the two. For that `other` is of another simdgroup than `last` wherever there was
// one.
struct Sharers {
  Access last, other;
  void add(const Access& now) {
    if (last.who != now.who && !(other.unordered(now) && !other.same_simdgroup(now)) && last.unordered(now))
      other = last;
    last = now;
  }
  const Access* unordered(const Access& now) const {
    return last.unordered(now) ? &last : other.unordered(now) ? &other : nullptr;
  }
};
struct Cell {
  Access write;
  Sharers readers, atomic_writes;
  uint8_t written;
};

// Memory of one or more overlapping bindings, given by the host. Bits are by byte, from `lo`.
struct HostRegion {
  uint8_t* lo;
  uint64_t len;
  uint64_t* written;                 // bytes that hold something; null: all do
  uint64_t *was_read, *was_written;  // bytes touched by this dispatch
};
struct HostBinding {
  uint32_t index, region;
  uint64_t begin, end;  // in the region
  uint64_t offset;      // in the buffer
  const char *name, *label;
  uint64_t bytes_read, bytes_written;  // by all accesses
  uint32_t writable, used;
};

struct Region {
  uintptr_t lo, hi;
  Cell* cells;  // room for one a byte, one for each `step` bytes in use; null: not tracked
  uint32_t step;
  const char* name;  // of threadgroup memory
  int line;
  HostRegion* host;
  uint32_t first_binding;
  HostBinding* only;  // the region's one binding, if it has one
};

constexpr unsigned MAX_TG = 256;
constexpr uintptr_t FAR = 1 << 20;  // no guess whose address a wrong one was meant to be
struct Check {
  Region regions[MAX_BUFFERS], tg[MAX_TG];
  unsigned region_count, tg_count;
  HostBinding* bindings;
  unsigned binding_count;
  Cell* arena_cells;
  uint32_t epoch_tg, epoch_device;
  uint32_t simd_epoch_tg[MAX_THREADS], simd_epoch_device[MAX_THREADS];
  uint64_t group;
  uint32_t seen[4096];  // one report for a program counter and kind
  bool on;
};

static uintptr_t object_lo, object_hi;

static void find_object() {
  Dl_info info;
  if (object_hi || !dladdr((void*)find_object, &info)) return;
  object_lo = object_hi = (uintptr_t)info.dli_fbase;
  dl_iterate_phdr(
      [](dl_phdr_info* o, size_t, void*) {
        if (o->dlpi_addr != object_lo) return 0;
        for (int k = 0; k < o->dlpi_phnum; k++) {
          if (o->dlpi_phdr[k].p_type != PT_LOAD) continue;
          uintptr_t end = o->dlpi_addr + o->dlpi_phdr[k].p_vaddr + o->dlpi_phdr[k].p_memsz;
          if (end > object_hi) object_hi = end;
        }
        return 1;
      },
      nullptr);
}
static Cell* map_cells(size_t n) {
  void* p =
      mmap(nullptr, (n + 1) * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : (Cell*)p;
}

void check_group_begin(Worker* w) {
  Check* c = w->check;
  c->tg_count = 0;
  c->epoch_tg = c->epoch_device = 0;
  memset(c->simd_epoch_tg, 0, sizeof c->simd_epoch_tg);
  memset(c->simd_epoch_device, 0, sizeof c->simd_epoch_device);
  c->group = ((uint64_t)w->group.z * w->groups.y + w->group.y) * w->groups.x + w->group.x;
}
void check_tgvar(Worker* w, void* p, size_t bytes, const char* name, int line) {
  Check* c = w->check;
  if (c->tg_count == MAX_TG) {
    report(w, "over %u threadgroup variables", MAX_TG);
    abort_group(w);
  }
  Cell* cells = c->arena_cells + ((char*)p - w->arena);
  memset(cells, 0, (bytes / 4 + 1) * sizeof(Cell));
  c->tg[c->tg_count++] = {(uintptr_t)p, (uintptr_t)p + bytes, cells, 4, name, line, nullptr, 0, nullptr};
}
void check_barrier(Worker* w, uint32_t flags) {
  if (flags & 2) w->check->epoch_tg++;
  if (flags & 1) w->check->epoch_device++;
}
void check_simd_barrier(Simdgroup* g, uint32_t lanes) {
  Worker* w = worker();
  Check* c = w->check;
  unsigned base = (unsigned)(g - w->sg) * 32;
  for (uint32_t m = lanes; m; m &= m - 1) {
    unsigned lane = __builtin_ctz(m);
    if (g->key[lane] & 2) c->simd_epoch_tg[base + lane]++;
    if (g->key[lane] & 1) c->simd_epoch_device[base + lane]++;
  }
}

static bool once(Check* c, uint32_t pc, uint32_t kind) {
  uint32_t& s = c->seen[(pc * 2654435761u + kind) >> 20];
  uint32_t key = pc ^ kind << 28;
  if (s == key) return false;
  s = key;
  return true;
}

// The binding of an access: the first that holds all of it and allows it.
static HostBinding* binding_of(Check* c, const Region& r, uintptr_t a, size_t n, bool write) {
  if (r.only) return r.only;
  uint64_t at = a - r.lo;
  HostBinding* best = nullptr;
  for (unsigned i = 0; i < c->binding_count; i++) {
    HostBinding* b = &c->bindings[i];
    if (&c->regions[b->region] != &r || at < b->begin || at + n > b->end) continue;
    if (!best || (bool)b->writable == write) best = b;
    if ((bool)b->writable == write) break;
  }
  return best;
}
struct Place {
  char text[192];
};
static Place place(Check* c, const Region& r, uintptr_t a) {
  Place p;
  if (!r.host) {
    snprintf(p.text, sizeof p.text, "threadgroup %s (line %d) byte %ld", r.name, r.line, (long)(a - r.lo));
    return p;
  }
  HostBinding* b = binding_of(c, r, a, 1, true);
  if (!b) b = &c->bindings[r.first_binding];
  snprintf(p.text, sizeof p.text, "buffer(%u) %s (%s) byte %ld of %lu", b->index, b->name, b->label,
           (long)(a - r.lo) - (long)b->begin, (unsigned long)(b->end - b->begin));
  return p;
}
static __attribute__((noinline)) void out_of_bounds(Worker* w, uintptr_t a, size_t n, bool write, uint32_t pc) {
  Check* c = w->check;
  const Region* best = nullptr;
  uintptr_t distance = 0;
  auto near = [&](const Region& r) {
    uintptr_t d = a < r.lo ? r.lo - a : a - r.hi;
    if (a >= r.lo && a < r.hi) d = 0;
    if (!best || d < distance) best = &r, distance = d;
  };
  for (unsigned i = 0; i < c->region_count; i++) near(c->regions[i]);
  for (unsigned i = 0; i < c->tg_count; i++) near(c->tg[i]);
  report(w, "out-of-bounds %s of %zu bytes at pc+0x%x by thread %u of threadgroup %lu: %s", write ? "write" : "read", n,
         pc, thread_index(), (unsigned long)c->group,
         best && distance < FAR ? place(c, *best, a).text : "far from everything bound");
  abort_group(w);
}

static void refine(Region& r, uint32_t step) {
  size_t n = (r.hi - r.lo + r.step - 1) / r.step, times = r.step / step;
  for (size_t i = n; i-- > 0;)
    for (size_t k = times; k-- > 0;) r.cells[i * times + k] = r.cells[i];
  r.step = step;
}
// The first word of `bits` that n <= 64 bits from `at` on lie in, the bits' mask in it, and in the next word.
static MSL_AI uint64_t masks(uint64_t at, size_t n, uint64_t& next) {
  uint64_t all = n == 64 ? ~0ull : (1ull << n) - 1;
  unsigned shift = at & 63;
  next = shift ? all >> (64 - shift) : 0;
  return all << shift;
}
static MSL_AI void set_bits(uint64_t* bits, uint64_t at, size_t n) {
  for (; n; n -= n < 64 ? n : 64, at += 64) {
    uint64_t next, first = masks(at, n < 64 ? n : 64, next);
    bits[at >> 6] |= first;
    if (next) bits[(at >> 6) + 1] |= next;
  }
}
static MSL_AI bool all_bits(const uint64_t* bits, uint64_t at, size_t n, uint64_t& missing) {
  for (; n; n -= n < 64 ? n : 64, at += 64) {
    uint64_t next, first = masks(at, n < 64 ? n : 64, next);
    uint64_t holes = first & ~bits[at >> 6], more = next ? next & ~bits[(at >> 6) + 1] : 0;
    if (!(holes | more)) continue;
    missing = holes ? (at & ~63ull) + __builtin_ctzll(holes) : (at & ~63ull) + 64 + __builtin_ctzll(more);
    return false;
  }
  return true;
}

static void race(Worker* w, Region& r, uintptr_t a, bool write, uint32_t pc, const Access& other, bool other_write) {
  Check* c = w->check;
  uint32_t kind = 2 + (write ? 1 : 0) + (other_write ? 2 : 0);
  if (!once(c, pc, kind)) return;
  unsigned thread = other.thread(), group = other.group(), other_pc = other.pc;
  const char *verb = write ? "write" : "read", *other_verb = other_write ? "write" : "read";
  if (r.host && group != (uint32_t)c->group)
    report(w, "race on %s: %s at pc+0x%x by thread %u of threadgroup %lu, %s at pc+0x%x by thread %u of threadgroup %u",
           place(c, r, a).text, verb, pc, thread_index(), (unsigned long)c->group, other_verb, other_pc, thread, group);
  else
    report(w, "race on %s: %s at pc+0x%x by thread %u, %s at pc+0x%x by thread %u, no barrier between",
           place(c, r, a).text, verb, pc, thread_index(), other_verb, other_pc, thread);
}

// One access inside region r.
static void touch(Worker* w, Region& r, uintptr_t a, size_t n, bool write, bool atomic, uint32_t pc) {
  Check* c = w->check;
  unsigned tid = thread_index();
  if (r.host) {
    uint64_t at = a - r.lo, missing;
    if (write) {
      set_bits(r.host->was_written, at, n);
      if (r.host->written) set_bits(r.host->written, at, n);
    } else {
      set_bits(r.host->was_read, at, n);
      if (r.host->written && !all_bits(r.host->written, at, n, missing) && once(c, pc, 1))
        report(w, "read of memory nobody wrote at pc+0x%x by thread %u of threadgroup %lu: %s", pc, tid,
               (unsigned long)c->group, place(c, r, r.lo + missing).text);
    }
  }
  if (!r.cells) return;
  uint32_t low = (uint32_t)(n | (a - r.lo));
  if (low & (r.step - 1)) refine(r, low & 1 ? 1 : 2);
  bool tg = !r.host;
  uint32_t epoch = tg ? c->epoch_tg : c->epoch_device,
           simd_epoch = tg ? c->simd_epoch_tg[tid] : c->simd_epoch_device[tid];
  const Access now = {(tg ? tid : (uint32_t)c->group << 10 | tid) + 1, epoch, simd_epoch, pc, atomic};
  Cell* cell = r.cells + (a - r.lo) / r.step;
  for (size_t i = 0; i < n; i += r.step, cell++) {
    if (tg && !write && !cell->written && once(c, pc, 1))
      report(w, "read of memory nobody wrote at pc+0x%x by thread %u of threadgroup %lu: %s", pc, tid,
             (unsigned long)c->group, place(c, r, a + i).text);
    if (cell->write.unordered(now)) race(w, r, a + i, write, pc, cell->write, true);
    const Access* other = cell->atomic_writes.unordered(now);
    if (other && !atomic) race(w, r, a + i, write, pc, *other, true);
    other = write ? cell->readers.unordered(now) : nullptr;
    if (other && !(atomic && other->atomic)) race(w, r, a + i, write, pc, *other, false);
    if (!write)
      cell->readers.add(now);
    else if (atomic)
      cell->atomic_writes.add(now);
    else
      cell->write = now;
    cell->written |= write;
  }
}

static MSL_AI void check_alignment(Worker* w, const Region& r, uintptr_t a, size_t n, bool write, uint32_t pc,
                                   size_t align) {
  if (__builtin_expect((a & (align - 1)) && once(w->check, pc, 7), 0))
    report(w, "misaligned %zu-byte %s at pc+0x%x: %s, %lu past a multiple of %zu", n, write ? "write" : "read", pc,
           place(w->check, r, a).text, (unsigned long)(a & (align - 1)), align);
}
static MSL_AI void access(void* p, size_t n, bool write, bool atomic, uintptr_t return_address, size_t align) {
  Worker* w = worker();
  uintptr_t a = (uintptr_t)p, base = (uintptr_t)w;
  if (__builtin_expect(!object_hi, 0) || n == 0) return;  // an initialiser of the object runs before any worker
  if (a - base < REGION && (a < (uintptr_t)w->arena || a >= base + STACKS))
    return;  // the thread's own memory, the shim's
  Check* c = w->check;
  uint32_t pc = (uint32_t)(return_address - object_lo - 1);
  for (unsigned i = 0; i < c->tg_count; i++) {
    Region& r = c->tg[i];
    if (a < r.lo || a + n > r.hi) continue;
    (write ? w->counters.threadgroup_bytes_written : w->counters.threadgroup_bytes_read) += n;
    check_alignment(w, r, a, n, write, pc, align);
    return touch(w, r, a, n, write, atomic, pc);
  }
  for (unsigned i = 0; i < c->region_count; i++) {
    Region& r = c->regions[i];
    if (a < r.lo || a + n > r.hi) continue;
    HostBinding* b = binding_of(c, r, a, n, write);
    if (!b) break;
    if (write && !b->writable) {
      report(w, "write to read-only %s at pc+0x%x by thread %u of threadgroup %lu", place(c, r, a).text, pc,
             thread_index(), (unsigned long)c->group);
      abort_group(w);
    }
    (write ? b->bytes_written : b->bytes_read) += n;
    check_alignment(w, r, a, n, write, pc, align);
    return touch(w, r, a, n, write, atomic, pc);
  }
  if (a >= object_lo && a + n <= object_hi) return;
  out_of_bounds(w, a, n, write, pc);
}
}  // namespace msl

using namespace msl;
#define MSL_EXPORT __attribute__((visibility("default")))
#define CALLER (uintptr_t)__builtin_return_address(0)
extern "C" {
// Before a run: the memory that it may touch. False if there is no memory to track it with.
MSL_EXPORT bool msl_check_begin(Worker* w, HostRegion* regions, uint32_t region_count, HostBinding* bindings,
                                uint32_t binding_count) {
  find_object();
  if (!w->check) w->check = (Check*)calloc(1, sizeof(Check));
  Check* c = w->check;
  if (!c || (!c->arena_cells && !(c->arena_cells = map_cells(ARENA)))) return false;
  memset(c->seen, 0, sizeof c->seen);
  c->region_count = region_count, c->bindings = bindings, c->binding_count = binding_count;
  for (unsigned i = 0; i < region_count; i++) {
    uintptr_t lo = (uintptr_t)regions[i].lo;
    c->regions[i] = {lo, lo + regions[i].len, nullptr, 4, nullptr, 0, &regions[i], 0, nullptr};
    bool writable = false;
    unsigned count = 0;
    for (unsigned k = binding_count; k-- > 0;) {
      if (bindings[k].region != i) continue;
      writable |= bindings[k].writable != 0;
      c->regions[i].first_binding = k;
      count++;
    }
    if (count == 1) c->regions[i].only = &bindings[c->regions[i].first_binding];
    if (writable && !(c->regions[i].cells = map_cells(regions[i].len))) return false;
  }
  w->counters = {};
  return true;
}
MSL_EXPORT void msl_check_end(Worker* w, Counters* counters) {
  Check* c = w->check;
  for (unsigned i = 0; i < c->region_count; i++)
    if (c->regions[i].cells) munmap(c->regions[i].cells, (c->regions[i].hi - c->regions[i].lo + 1) * sizeof(Cell));
  c->region_count = 0;
  *counters = w->counters;
}
MSL_EXPORT void msl_check_free(Worker* w) {
  if (!w->check) return;
  if (w->check->arena_cells) munmap(w->check->arena_cells, (ARENA + 1) * sizeof(Cell));
  free(w->check);
  w->check = nullptr;
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define MSL_ACCESS(n)                                                               \
  void __tsan_read##n(void* p) { access(p, n, false, false, CALLER, n); }           \
  void __tsan_write##n(void* p) { access(p, n, true, false, CALLER, n); }           \
  void __tsan_unaligned_read##n(void* p) { access(p, n, false, false, CALLER, 1); } \
  void __tsan_unaligned_write##n(void* p) { access(p, n, true, false, CALLER, 1); }
MSL_ACCESS(1)
MSL_ACCESS(2)
MSL_ACCESS(4)
MSL_ACCESS(8)
MSL_ACCESS(16)
void* __tsan_memcpy(void* d, const void* s, size_t n) {
  access((void*)s, n, false, false, CALLER, 1);
  access(d, n, true, false, CALLER, 1);
  return memcpy(d, s, n);
}
void* __tsan_memmove(void* d, const void* s, size_t n) {
  access((void*)s, n, false, false, CALLER, 1);
  access(d, n, true, false, CALLER, 1);
  return memmove(d, s, n);
}
void* __tsan_memset(void* d, int v, size_t n) {
  access(d, n, true, false, CALLER, 1);
  return memset(d, v, n);
}
// One thread runs all fibres: plain operations are atomic here.
#define MSL_ATOMIC(bits, T)                                                                        \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    access((void*)p, sizeof(T), false, true, CALLER, sizeof(T));                                   \
    return *p;                                                                                     \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                                      \
    access((void*)p, sizeof(T), true, true, CALLER, sizeof(T));                                    \
    *p = v;                                                                                        \
  }                                                                                                \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                      \
    access((void*)p, sizeof(T), true, true, CALLER, sizeof(T));                                    \
    T old = *p;                                                                                    \
    *p = v;                                                                                        \
    return old;                                                                                    \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T v, int, int) {   \
    access((void*)p, sizeof(T), true, true, CALLER, sizeof(T));                                    \
    if (*p == *expected) {                                                                         \
      *p = v;                                                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    *expected = *p;                                                                                \
    return 0;                                                                                      \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T v, int a, int b) { \
    access((void*)p, sizeof(T), true, true, CALLER, sizeof(T));                                    \
    if (*p == *expected) {                                                                         \
      *p = v;                                                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    *expected = *p;                                                                                \
    return 0;                                                                                      \
  }                                                                                                \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T v, int, int) {         \
    access((void*)p, sizeof(T), true, true, CALLER, sizeof(T));                                    \
    T old = *p;                                                                                    \
    if (old == expected) *p = v;                                                                   \
    return old;                                                                                    \
  }
MSL_ATOMIC(8, uint8_t)
MSL_ATOMIC(32, uint32_t)
MSL_ATOMIC(64, uint64_t)

// Undefined behaviour that a GPU answers with some number. A fatal one would harm the host.
static void undefined(const char* what, bool fatal, uintptr_t return_address) {
  if (!object_hi) return;
  Worker* w = worker();
  uint32_t pc = (uint32_t)(return_address - object_lo - 1);
  if (once(w->check, pc, 8))
    report(w, "%s at pc+0x%x by thread %u of threadgroup %lu", what, pc, thread_index(),
           (unsigned long)w->check->group);
  if (fatal) abort_group(w);
}
void __ubsan_handle_out_of_bounds(void*, void*) {
  undefined("index outside of a thread or threadgroup array", true, CALLER);
}
void __ubsan_handle_shift_out_of_bounds(void*, void*, void*) { undefined("shift count out of range", false, CALLER); }
void __ubsan_handle_divrem_overflow(void*, void*, void*) {
  undefined("integer division by zero or overflow", true, CALLER);
}
void __ubsan_handle_float_cast_overflow(void*, void*) {
  undefined("float to integer conversion out of range", false, CALLER);
}
void __ubsan_handle_add_overflow(void*, void*, void*) { undefined("signed overflow in +", false, CALLER); }
void __ubsan_handle_sub_overflow(void*, void*, void*) { undefined("signed overflow in -", false, CALLER); }
void __ubsan_handle_mul_overflow(void*, void*, void*) { undefined("signed overflow in *", false, CALLER); }
void __ubsan_handle_negate_overflow(void*, void*) { undefined("signed overflow in negation", false, CALLER); }
}
