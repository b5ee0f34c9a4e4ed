// expect: 4: kernel must have void return type
#include <metal_stdlib>
using namespace metal;
kernel float k(device float* o [[buffer(0)]]) {
    return 1.0f;
}
