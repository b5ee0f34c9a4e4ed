#include <metal_stdlib>
using namespace metal;
// Each of 8 results is an 8x8 matrix of floats; the test computes the same from a, b and c.
struct Accumulator { simdgroup_float8x8 m; };
kernel void matrices(device const float* abc [[buffer(0)]], device float* o [[buffer(1)]], device const half* h [[buffer(2)]]) {
  simdgroup_float8x8 a, b, c;
  simdgroup_load(a, abc, 8);
  simdgroup_load(b, abc + 64, 8);
  simdgroup_load(c, abc + 128, 8);
  simdgroup_float8x8 d;
  simdgroup_multiply_accumulate(d, a, b, c); // another sum
  simdgroup_store(d, o);
  simdgroup_float8x8 e = a;
  simdgroup_multiply_accumulate(e, e, b, c); // the result over an operand
  simdgroup_store(e, o + 64);
  simdgroup_multiply(d, a, b); // a chain: each product needs the one before
  simdgroup_multiply_accumulate(d, d, b, d);
  simdgroup_store(d, o + 128);
  Accumulator s;
  s.m = c;
  for (uint i = 0; i < 40; i++) { // more than one batch, copied in the middle
    simdgroup_multiply_accumulate(s.m, a, b, s.m);
    if (i == 20) {
      simdgroup_float8x8 middle = s.m;
      simdgroup_store(middle, o + 192);
    }
  }
  simdgroup_store(s.m, o + 256);
  simdgroup_half8x8 x, y, z(1.0h);
  simdgroup_load(x, h, 8);
  simdgroup_load(y, h + 64, 8, ulong2(0, 0), true);
  simdgroup_multiply_accumulate(z, x, y, z); // a half sum
  o[320 + simd_prefix_exclusive_sum(1u) * 2] = float(z.thread_elements()[0]);
  o[321 + simd_prefix_exclusive_sum(1u) * 2] = float(z.thread_elements()[1]);
  simdgroup_float8x8 w[2] = {c, c};
  simdgroup_multiply_accumulate(w[0], x, y, w[0]);
  simdgroup_multiply_accumulate(w[1], a, w[0], w[1]); // an operand that is still to be computed
  w[0] = w[1];
  w[1] = simdgroup_float8x8(0.0f);
  simdgroup_store(w[0], o + 384, 8, ulong2(0, 0), true);
  simdgroup_store(a * b, o + 448);
}
