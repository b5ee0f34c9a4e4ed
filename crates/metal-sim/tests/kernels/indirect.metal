#include <metal_stdlib>
using namespace metal;
// A kernel that decides the grid of another: rows of lists are cut into tiles of up to four rows, none with rows of two
// lists, and the second kernel runs two threadgroups for each tile.
struct Tile {
  uint list, first, rows;
};
// One thread. `grid` is [tiles, 2, 1], or empty where there are no tiles.
kernel void count_tiles(constant uint& lists [[buffer(0)]], device const uint* lengths [[buffer(1)]],
                        device Tile* tiles [[buffer(2)]], device uint* grid [[buffer(3)]]) {
  uint count = 0, row = 0;
  for (uint list = 0; list < lists; ++list) {
    for (uint done = 0; done < lengths[list]; done += 4) {
      tiles[count] = {list, row + done, min(4u, lengths[list] - done)};
      ++count;
    }
    row += lengths[list];
  }
  grid[0] = count;
  grid[1] = 2;
  grid[2] = 1;
}
// 32 threads: the tile's rows of eight columns, times the number of their list and one, in each half of the columns.
// `seen` is the grid as the kernel sees it.
kernel void scale_tiles(device const Tile* tiles [[buffer(0)]], device const float* x [[buffer(1)]],
                        device float* y [[buffer(2)]], device uint* seen [[buffer(3)]],
                        uint2 group [[threadgroup_position_in_grid]], uint2 groups [[threadgroups_per_grid]],
                        uint2 threads [[threads_per_grid]], uint i [[thread_index_in_threadgroup]]) {
  Tile tile = tiles[group.x];
  uint row = i / 4, column = 4 * group.y + i % 4;
  threadgroup float shared[32];
  uint at = 8 * (tile.first + row) + column;
  shared[i] = row < tile.rows ? x[at] : 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (row < tile.rows) {
    y[at] = shared[i] * float(tile.list + 1);
  }
  if (group.x == 0 && group.y == 0 && i == 0) {
    seen[0] = groups.x;
    seen[1] = groups.y;
    seen[2] = threads.x;
  }
}
// Asks for more of itself.
kernel void grows(device atomic_uint* grid [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
  if (i == 0) {
    atomic_fetch_add_explicit(grid, 1u, memory_order_relaxed);
  }
}
