// Data that is its own flag: a word of the exchange is EMPTY until its producer stores it, and a consumer reads it until it is
// not. One trip through L2 instead of the four of a grid barrier (fence, count, poll, load). EMPTY is a NaN that no rounding
// or arithmetic produces (theirs is 0x7f..), in every type used here. The sweeper empties a block's words once all consumers
// have them.
#pragma once
#include "../core/vector.cuh"
#include "../core/words.cuh"
#include "denoise_shape.h"

namespace frt::denoise {

inline constexpr unsigned EMPTY = 0xffffffffu;

__device__ __forceinline__ uint4 peek(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
__device__ __forceinline__ void publish(void* p, unsigned x) { store_word(p, x); }
__device__ __forceinline__ void publish(void* p, uint2 x) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(__cvta_generic_to_global(p)), "r"(x.x), "r"(x.y)
               : "memory");
}
__device__ __forceinline__ void publish(void* p, uint4 x) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(x.x),
               "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}
__device__ __forceinline__ unsigned most(uint4 v) { return max(max(v.x, v.y), max(v.z, v.w)); }

// v[i] = 16 bytes at at(i) where want(i), zeros elsewhere; whether they are there is for `settle` to see. want(i) is the same at every
// call.
template <int N, class Want, class At>
__device__ __forceinline__ void request(uint4 (&v)[N], Want&& want, At&& at) {
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = want(i) ? peek(at(i)) : make_uint4(0, 0, 0, 0);
}
// Returns once v[begin..begin+COUNT-1] are there (begin: a constant after unrolling).
template <int COUNT, int N, class Want, class At>
__device__ __forceinline__ void settle(uint4 (&v)[N], int begin, Want&& want, At&& at) {
  for (unsigned tries = 0;; ++tries) {
    unsigned top = 0;
#pragma unroll
    for (int i = begin; i < begin + COUNT; ++i) top = max(top, most(v[i]));
    if (top != EMPTY) return;
    if (tries == PATIENCE) __trap();
#pragma unroll
    for (int i = begin; i < begin + COUNT; ++i)
      if (want(i)) v[i] = peek(at(i));
  }
}
template <int N, class Want, class At>
__device__ __forceinline__ void receive(uint4 (&v)[N], Want&& want, At&& at) {
  request(v, want, at);
  settle<N>(v, 0, want, at);
}

// Hints: reading words that are not there yet slows down everybody (five times, at 20 KB a block), so one lane of a warp waits
// for a counter first. It orders nothing: what is received is still told by its own words.
__device__ __forceinline__ char* counter(char* exchange, Kind kind, int group) {
  return exchange + Exchange::COUNTERS + (kind * GROUPS + group) * 128;
}
// The warp that reads this block's `bytes` of a row, where warps read 128 of every 1024: the group of the block.
__device__ __forceinline__ int readers(int bytes) { return blockIdx.x * bytes % 1024 / 128; }
// By a whole warp, after what it published: lanes 0..lanes-1, each for its `group`.
__device__ __forceinline__ void signal(char* exchange, Kind kind, int group, int lanes = 1) {
  __syncwarp();
  if (int(threadIdx.x) % 32 < lanes)
    asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(counter(exchange, kind, group)))
                 : "memory");
}
// By all computing warps, once for all of them; only the first waits for the others.
__device__ __forceinline__ void signal_together(char* exchange, Kind kind, int group, int lanes = 1) {
  if (threadIdx.x >= 32) {
    asm volatile("bar.arrive 3, %0;" ::"n"(CONSUMERS) : "memory");
  } else {
    asm volatile("bar.sync 3, %0;" ::"n"(CONSUMERS) : "memory");
    signal(exchange, kind, group, lanes);
  }
}
// By a whole warp: until the group has signalled `times` times since the launch (counters start at -1). Lanes 0..lanes-1 may
// each wait for a group.
__device__ __forceinline__ void await(char* exchange, Kind kind, int group, int times, int lanes = 1) {
  if (int(threadIdx.x) % 32 < lanes) {
    const char* p = counter(exchange, kind, group);
    for (unsigned tries = 0;; ++tries) {
      if (int(load_word(p)) + 1 >= times) break;
      if (tries == PATIENCE) __trap();
    }
  }
  __syncwarp();
}

// `rows` rows of UNITS times 16 bytes at `p`, `pitch` bytes apart, by one warp.
template <int UNITS>
__device__ __forceinline__ void sweep(char* p, int rows, int pitch) {
  for (int i = threadIdx.x % 32; i < rows * UNITS; i += 32)
    publish(p + i / UNITS * pitch + i % UNITS * 16, make_uint4(EMPTY, EMPTY, EMPTY, EMPTY));
}

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }
// Not `bar.sync`: the sweeper joins from another place in the code than the computing warps do.
__device__ __forceinline__ void sync_swept() { asm volatile("barrier.sync 2, %0;" ::"n"(SWEPT) : "memory"); }

}  // namespace frt::denoise
