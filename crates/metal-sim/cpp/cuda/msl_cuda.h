// metal_stdlib for NVIDIA GPUs: MSL as CUDA C++17, compiled with every function a device function. Needs no header of
// the CUDA toolkit.
//
// The rewritten kernels are put into namespace metal, so that float4, half and max are these and not CUDA's.
#pragma once
#include "msl_cuda_math.h"
#include "msl_cuda_matrix.h"
#include "msl_cuda_simd.h"
#include "msl_cuda_types.h"

// Dispatch attributes, by their names in MSL.
namespace msl {
inline metal::uint3 thread_position_in_threadgroup() { return metal::uint3(threadIdx.x, threadIdx.y, threadIdx.z); }
inline metal::uint3 threadgroup_position_in_grid() { return metal::uint3(blockIdx.x, blockIdx.y, blockIdx.z); }
inline metal::uint3 threads_per_threadgroup() { return metal::uint3(blockDim.x, blockDim.y, blockDim.z); }
inline metal::uint3 dispatch_threads_per_threadgroup() { return threads_per_threadgroup(); }
// `counts` are the threadgroups of an indirect grid; null for another, which is all that is launched.
inline metal::uint3 threadgroups_per_grid(const unsigned* counts) {
  return counts ? metal::uint3(counts[0], counts[1], counts[2]) : metal::uint3(gridDim.x, gridDim.y, gridDim.z);
}
inline metal::uint3 threads_per_grid(const unsigned* counts) {
  return threadgroups_per_grid(counts) * threads_per_threadgroup();
}
// Whether this threadgroup is beyond those of an indirect grid. More than are launched would be left out in silence: a trap.
inline bool is_beyond(const unsigned* counts) {
  if (!counts) return false;
  if (counts[0] > gridDim.x || counts[1] > gridDim.y || counts[2] > gridDim.z) __trap();
  return blockIdx.x >= counts[0] || blockIdx.y >= counts[1] || blockIdx.z >= counts[2];
}
inline metal::uint3 thread_position_in_grid() {
  return threadgroup_position_in_grid() * threads_per_threadgroup() + thread_position_in_threadgroup();
}
inline unsigned thread_index_in_threadgroup() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
inline unsigned thread_index_in_simdgroup() { return thread_index_in_threadgroup() & 31; }
inline unsigned simdgroup_index_in_threadgroup() { return thread_index_in_threadgroup() >> 5; }
inline unsigned simdgroups_per_threadgroup() { return (blockDim.x * blockDim.y * blockDim.z + 31) >> 5; }
inline unsigned dispatch_simdgroups_per_threadgroup() { return simdgroups_per_threadgroup(); }
inline unsigned threads_per_simdgroup() { return 32; }
inline unsigned thread_execution_width() { return 32; }
}  // namespace msl

#define MSL_TGREF(T, name, id, line) __shared__ __align__(16) T name

// Address-space words; threadgroup variables are rewritten before this is reached.
#define device
#define constant const
#define threadgroup
#define thread
#define kernel static __forceinline__
#define ray_data
#define __METAL_VERSION__ 300
