// Each head's own matrix times its part of a row: from queries to the width of the cache, from latents to values. Matrices of all
// heads lie one after another.

// y of a head, ROWS elements: parts of a row are INPUT elements apart, results OUTPUT. A simdgroup has NR rows of a head.
template <typename G, uint HEADS, uint ROWS, uint COLS, uint INPUT, uint OUTPUT, uint NR, uint SIMDGROUPS>
inline void head_rows(device const uchar* weights, device const float* x, device float* y, uint group, uint simdgroup,
                      uint lane) {
    constexpr uint TEAMS = ROWS / NR;
    const uint team = group * SIMDGROUPS + simdgroup;
    if (team < HEADS * TEAMS) {
        const uint head = team / TEAMS;
        const uint first = team % TEAMS * NR;
        float acc[NR] = {};
        G::template run<HEADS * ROWS, COLS, NR, 1, 0>(weights, x + head * INPUT, head * ROWS + first, 0, lane, acc);
        store_rows<NR>(y + head * OUTPUT, acc, first, ROWS, lane);
    }
}

// The same by the columns of matrices that are stored turned, [HEADS][ROWS][COLS]: y has COLS elements, 128 of them a
// threadgroup, whose simdgroups share the rows. `shared` holds 128 floats for each.
template <typename W, uint HEADS, uint ROWS, uint COLS, uint INPUT, uint OUTPUT, uint SIMDGROUPS>
inline void head_columns(device const uchar* weights, device const float* x, device float* y, threadgroup float* shared,
                         uint group, uint simdgroup, uint lane) {
    constexpr uint PARTS = (COLS + 127) / 128;
    const uint head = group / PARTS;
    const uint column = group % PARTS * 128 + lane * 4;
    threadgroup float4* sums = (threadgroup float4*)shared;
    float4 sum = 0.0f;
    if (column < COLS) {
        for (uint row = simdgroup; row < ROWS; row += SIMDGROUPS) {
            sum += x[head * INPUT + row] *
                   W::template load4<HEADS * ROWS, COLS>(weights, head * ROWS + row, column);
        }
    }
    sums[simdgroup * 32 + lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup == 0 && column < COLS) {
        for (uint s = 1; s < SIMDGROUPS; ++s) {
            sum += sums[s * 32 + lane];
        }
        *(device float4*)(y + head * OUTPUT + column) = sum;
    }
}

// The part of a row's query that rotates, a simdgroup a head.
template <uint HEADS, uint NOPE, uint ROPE, uint LATENT, bool INTERLEAVED>
inline void rotate_query(device const float* x, device float* y, constant float* inv_freq, uint position,
                         float magnitude, uint head, uint lane) {
    if (head < HEADS) {
        const Unnormed norm = {};
        rotate_head<ROPE, ROPE, INTERLEAVED>(x + head * (NOPE + ROPE) + NOPE, y + head * (LATENT + ROPE) + LATENT, norm,
                                             inv_freq, float(position), magnitude, lane);
    }
}

// A row's queries over the cache, [HEADS][LATENT + ROPE], of [HEADS][NOPE + ROPE], the first of WIDTH elements of its
// input; the threadgroups after those of the product rotate.
template <typename G, uint HEADS, uint NOPE, uint ROPE, uint LATENT, bool INTERLEAVED, uint WIDTH, uint NR,
          uint SIMDGROUPS>
inline void latent_queries(device const uchar* weights, device const float* input, device float* q,
                           constant float* inv_freq, uint position, float magnitude, uint2 group, uint simdgroup,
                           uint lane) {
    constexpr uint GROUPS = (HEADS * LATENT / NR + SIMDGROUPS - 1) / SIMDGROUPS;
    device const float* x = input + group.y * WIDTH;
    device float* y = q + group.y * (HEADS * (LATENT + ROPE));
    if (group.x < GROUPS) {
        head_rows<G, HEADS, LATENT, NOPE, NOPE + ROPE, LATENT + ROPE, NR, SIMDGROUPS>(
            weights, x, y, group.x, simdgroup, lane);
    } else {
        rotate_query<HEADS, NOPE, ROPE, LATENT, INTERLEAVED>(
            x, y, inv_freq, position, magnitude, (group.x - GROUPS) * SIMDGROUPS + simdgroup, lane);
    }
}

// The same of matrices whose rows are elements of a head's key.
template <typename W, uint HEADS, uint NOPE, uint ROPE, uint LATENT, bool INTERLEAVED, uint WIDTH, uint SIMDGROUPS>
inline void latent_queries_by_key(device const uchar* weights, device const float* input, device float* q,
                                  threadgroup float* shared, constant float* inv_freq, uint position, float magnitude,
                                  uint2 group, uint simdgroup, uint lane) {
    constexpr uint GROUPS = HEADS * ((LATENT + 127) / 128);
    device const float* x = input + group.y * WIDTH;
    device float* y = q + group.y * (HEADS * (LATENT + ROPE));
    if (group.x < GROUPS) {
        head_columns<W, HEADS, NOPE, LATENT, NOPE + ROPE, LATENT + ROPE, SIMDGROUPS>(
            weights, x, y, shared, group.x, simdgroup, lane);
    } else {
        rotate_query<HEADS, NOPE, ROPE, LATENT, INTERLEAVED>(
            x, y, inv_freq, position, magnitude, (group.x - GROUPS) * SIMDGROUPS + simdgroup, lane);
    }
}

// A row's values, [HEADS][VALUE], of latents [HEADS][LATENT].
template <typename G, uint HEADS, uint LATENT, uint VALUE, uint NR, uint SIMDGROUPS>
inline void latent_values(device const uchar* weights, device const float* input, device float* y, uint2 group,
                          uint simdgroup, uint lane) {
    head_rows<G, HEADS, VALUE, LATENT, LATENT, VALUE, NR, SIMDGROUPS>(
        weights, input + group.y * (HEADS * LATENT), y + group.y * (HEADS * VALUE), group.x, simdgroup, lane);
}
