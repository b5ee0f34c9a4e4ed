// The append to a cache of latents, [position][LATENT + ROPE]: the norm of a row's latent, and the rotation of the key that all
// heads share. A row of the input has BEFORE elements before these. Two simdgroups a row.
template <uint BEFORE, uint LATENT, uint ROPE, bool INTERLEAVED, typename T>
inline void latent_append(device const float* input, device const float* gamma, device T* latents,
                          constant float* inv_freq, uint start_of_slot, uint position, float eps, float magnitude,
                          uint row, uint simdgroup, uint lane) {
    device const float* source = input + row * (BEFORE + LATENT + ROPE) + BEFORE;
    const ulong at = ulong(start_of_slot) + position;
    if (simdgroup == 0) {
        const auto target = cache_head<LATENT + ROPE>(latents, at, 0);
        const NormedByGamma norm = {elements_rms_scale<LATENT>(source, eps, lane), gamma};
        copy_head<LATENT>(source, target, norm, lane);
    } else if (simdgroup == 1) {
        const auto target = cache_head<LATENT + ROPE>(latents, at, LATENT);
        const Unnormed norm = {};
        rotate_head<ROPE, ROPE, INTERLEAVED>(
            source + LATENT, target, norm, inv_freq, float(position), magnitude, lane);
    }
}

// The same, and the norm of the elements before them, which two simdgroups more write to y [rows][BEFORE].
template <uint BEFORE, uint LATENT, uint ROPE, bool INTERLEAVED, typename T>
inline void latent_append_normed(device const float* input, device const float* gamma, device const float* q_gamma,
                                 device T* latents, device float* y, constant float* inv_freq, uint start_of_slot,
                                 uint position, float eps, float magnitude, uint row, uint simdgroup, uint lane) {
    latent_append<BEFORE, LATENT, ROPE, INTERLEAVED>(
        input, gamma, latents, inv_freq, start_of_slot, position, eps, magnitude, row, simdgroup, lane);
    if (simdgroup >= 2) {
        device const float* source = input + row * (BEFORE + LATENT + ROPE);
        const float scale = elements_rms_scale<BEFORE>(source, eps, lane);
        for (uint i = (simdgroup - 2) * 32 + lane; i < BEFORE; i += 64) {
            y[row * BEFORE + i] = source[i] * scale * q_gamma[i];
        }
    }
}
