// The weights' way into a block: a ring of slots in shared memory, filled by one warp as fast as slots come free, so that
// memory is read while the computing warps wait for other blocks. A slot holds 8 rows x 1024 bytes of a weight matrix; rows lie
// 1088 bytes apart, which lets 8 lanes read 16 bytes each of two rows without a bank conflict.
#pragma once
#include "../core/bulk.cuh"
#include "denoise_shape.h"

namespace frt::denoise {

inline constexpr int CHUNK = 1024, PITCH = CHUNK + 64, SLOT = 8 * PITCH;
inline constexpr int KEY_PITCH = HD + 8;  // bf16 values of a key row in shared memory

template <class T, int K>
inline constexpr int chunks_of = K * int(sizeof(T)) / CHUNK;  // of 8 rows

// One warp's position in the ring. full: the copies have landed. empty: all computing warps are done with the slot.
struct Ring {
  char* slots;
  uint64_t *full, *empty;
  int count, at = 0;
  unsigned parity = 0;

  __device__ int slot(int i, unsigned& p) const {
    const int s = at + i;
    p = s < count ? parity : parity ^ 1;
    return s < count ? s : s - count;
  }
  __device__ const char* chunk(int i) const {
    const int s = at + i;
    return slots + (s < count ? s : s - count) * SLOT;
  }
  // The next n chunks are there: lane i looks at chunk i.
  __device__ void wait(int n, int lane) {
    if (lane < n) {
      unsigned p;
      const int s = slot(lane, p);
      barrier_wait(full + s, p);
    }
    __syncwarp();
  }
  __device__ void release(int n, int lane) {
    __syncwarp();
    unsigned p;
    if (lane < n) barrier_arrive(empty + slot(lane, p));
    at += n;
    if (at >= count) at -= count, parity ^= 1;
  }
  // Loader: 8 rows from `rows`, `pitch` bytes apart, into the next slot.
  __device__ void load(const char* rows, size_t pitch, int lane) {
    barrier_wait(empty + at, parity ^ 1);
    if (lane == 0) barrier_expect(full + at, 8 * CHUNK);
    __syncwarp();
    if (lane < 8) bulk_load(slots + at * SLOT + lane * PITCH, rows + lane * pitch, CHUNK, full + at);
    if (++at == count) at = 0, parity ^= 1;
  }
};

// The keys of one block: rows begin..begin+count-1 of prefix and suffix together, the first `cached` of them in the cache.
struct Keys {
  int prefix, begin, count, cached;
  __device__ explicit Keys(const Args& a) {
    prefix = min(max(*a.prefix_len, 0), a.cache_rows - a.M);  // clamped, as in qkv_rope: no read past the cache
    const int all = prefix + a.M, each = (all + SPLITS - 1) / SPLITS;
    begin = blockIdx.x % SPLITS * each;
    count = max(min(each, all - begin), 0);
    cached = max(min(count, prefix - begin), 0);
  }
};

// The loader's program: everything this block will read, in the order of its use.
template <class T>
__device__ void load_all(const Args& a, Ring ring, const Keys& keys, bf16* k, bf16* v, uint64_t* full, uint64_t* empty) {
  const int b = blockIdx.x, lane = threadIdx.x % 32;
  auto tile = [&](const void* w, int row, int K) {
    const size_t pitch = K * sizeof(T);
    const char* rows = static_cast<const char*>(w) + row * pitch;
    for (size_t at = 0; at < pitch; at += CHUNK) ring.load(rows + at, pitch, lane);
  };
  unsigned parity = 1;
  for (int step = 0; step < a.steps; ++step)
    for (int i = 0; i < a.L; ++i, parity ^= 1) {
      const Layer& w = a.layers[i];
      for (int t = b; t < QKV / 8; t += BLOCKS) tile(w.qkv, t * 8, D);
      barrier_wait(empty, parity);
      if (lane == 0) barrier_expect(full, keys.cached * HD * 2 * sizeof(bf16));
      __syncwarp();
      for (int r = lane; r < keys.cached; r += 32) {
        const size_t from = size_t(keys.begin + r) * HD;
        bulk_load(k + r * KEY_PITCH, w.k + from, HD * sizeof(bf16), full);
        bulk_load(v + r * KEY_PITCH, w.v + from, HD * sizeof(bf16), full);
      }
      tile(w.o, b * 8, Q);
      for (int t = 0; t < 4; ++t) tile(w.gate_up, b * 32 + t * 8, D);
      for (int t = 0; t < 4; ++t) tile(w.gate_up, MLP + b * 32 + t * 8, D);
      tile(w.down, b * 8, MLP);
    }
}

}  // namespace frt::denoise
