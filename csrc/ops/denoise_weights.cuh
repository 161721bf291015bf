// The weights' way into a block: a ring of slots in shared memory, filled by one warp as fast as slots come free, so that
// memory is read while the computing warps wait for other blocks. A slot holds 8 rows x 1024 bytes of a weight matrix; they
// lie so that neither 2 rows x 64 bytes nor 4 rows x 32 bytes (16 and 8 bytes of a quarter or half warp's lanes) share a bank.
#pragma once
#include "../core/bulk.cuh"
#include "denoise_shape.h"

namespace frt::denoise {

inline constexpr int CHUNK = 1024, SLOT = 8 * (CHUNK + 64);
__device__ __forceinline__ int row_in_slot(int row) { return row * (CHUNK + 64) + (row & 2) * 16; }
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
    if (lane < 8) bulk_load(slots + at * SLOT + row_in_slot(lane), rows + lane * pitch, CHUNK, full + at);
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

// The weight loader's program: everything this block will read, in the order of its use.
template <class T>
__device__ void load_weights(const Args& a, Ring ring) {
  const int b = blockIdx.x, lane = threadIdx.x % 32;
  for (int n = 0; n < a.steps * a.L; ++n) {
    const Layer& w = a.layers[n % a.L];
#pragma unroll 1
    for (int part = 0; part < 5; ++part) {
      // qkv, o, gate, up, down: first tile of 8 rows, tiles, their distance
      const void* weight = part == 0 ? w.qkv : part == 1 ? w.o : part == 4 ? w.down : w.gate_up;
      const size_t pitch = (part == 1 ? Q : part == 4 ? MLP : D) * sizeof(T);
      const int first = part == 2 ? b * 4 : part == 3 ? MLP / 8 + b * 4 : b, step = part == 0 ? BLOCKS : 1;
      const int tiles = part == 0 ? qkv_tiles(b) : part == 1 || part == 4 ? 1 : 4;
#pragma unroll 1
      for (int t = 0; t < tiles; ++t) {
        const char* rows = static_cast<const char*>(weight) + (first + t * step) * 8 * pitch;
#pragma unroll 1
        for (size_t at = 0; at < pitch; at += CHUNK) ring.load(rows + at, pitch, lane);
      }
    }
  }
}

// The key loader's program: the cached rows of K and V of each layer.
__device__ inline void load_keys(const Args& a, const Keys& keys, bf16* k, bf16* v, uint64_t* full, uint64_t* empty) {
  const int lane = threadIdx.x % 32;
  for (int n = 0; n < a.steps * a.L; ++n) {
    const Layer& w = a.layers[n % a.L];
    barrier_wait(empty, n % 2 ^ 1);
    if (lane == 0) barrier_expect(full, keys.cached * HD * 2 * sizeof(bf16));
    __syncwarp();
    for (int r = lane; r < keys.cached; r += 32) {
      const size_t from = size_t(keys.begin + r) * HD;
      bulk_load(k + r * KEY_PITCH, w.k + from, HD * sizeof(bf16), full);
      bulk_load(v + r * KEY_PITCH, w.v + from, HD * sizeof(bf16), full);
    }
  }
}

}  // namespace frt::denoise
