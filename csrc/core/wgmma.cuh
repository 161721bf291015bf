// wgmma: c[64 x N] += a[64 x 32 bytes] b[N x 32 bytes]^T by one group of four warps, operands in shared memory that the copy
// engine filled with the 128-byte swizzle. Thread t of warp w holds rows 16 w + t/4 and + 8, and of each 8 columns the two
// at 2 (t%4): c[4 j + i] is row + 8 (i / 2), column 8 j + 2 (t%4) + i%2. For kernels whose body is there for SM90 alone.
#pragma once
#include "dtype.h"
#include "mma.cuh"

namespace frt::sm90 {

// Rows of 128 bytes, eight rows (1024 bytes) a swizzle unit. Adding 2 moves on by 32 bytes of K.
__device__ __forceinline__ uint64_t k_major(const void* tile) {
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}
// [K][64 elements] boxes of 128-byte rows, `box_bytes` from one box of 64 columns to the next.
__device__ __forceinline__ uint64_t n_major(const void* tile, int box_bytes) {
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(box_bytes >> 4) << 16 | uint64_t(64) << 32 |
         uint64_t(1) << 62;
}

// No swizzle: blocks of 8 rows of 16 bytes lie together. lead, step: bytes between neighbouring blocks along K and along rows
// (where the operand is read along its rows, n_major's case, along K for `lead` as well).
__device__ __forceinline__ uint64_t plain(const void* tile, int lead, int step) {
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(lead >> 4) << 16 | uint64_t(step >> 4) << 32;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}
// The sums in registers are used only after the wait before this: the compiler does not see that a wait concerns them.
template <int N>
__device__ __forceinline__ void wgmma_done(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Operand lists: FRT_Rn names registers 8n..8n+7 of the accumulator, FRT_Dn passes them.
#define FRT_R0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define FRT_R1 "%8,%9,%10,%11,%12,%13,%14,%15"
#define FRT_R2 "%16,%17,%18,%19,%20,%21,%22,%23"
#define FRT_R3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define FRT_R4 "%32,%33,%34,%35,%36,%37,%38,%39"
#define FRT_R5 "%40,%41,%42,%43,%44,%45,%46,%47"
#define FRT_R6 "%48,%49,%50,%51,%52,%53,%54,%55"
#define FRT_R7 "%56,%57,%58,%59,%60,%61,%62,%63"
#define FRT_R8 "%64,%65,%66,%67,%68,%69,%70,%71"
#define FRT_R9 "%72,%73,%74,%75,%76,%77,%78,%79"
#define FRT_R10 "%80,%81,%82,%83,%84,%85,%86,%87"
#define FRT_R11 "%88,%89,%90,%91,%92,%93,%94,%95"
#define FRT_R12 "%96,%97,%98,%99,%100,%101,%102,%103"
#define FRT_R13 "%104,%105,%106,%107,%108,%109,%110,%111"
#define FRT_R14 "%112,%113,%114,%115,%116,%117,%118,%119"
#define FRT_R15 "%120,%121,%122,%123,%124,%125,%126,%127"
#define FRT_L32 FRT_R0 "," FRT_R1
#define FRT_L64 FRT_L32 "," FRT_R2 "," FRT_R3
#define FRT_L80 FRT_L64 "," FRT_R4
#define FRT_L96 FRT_L64 "," FRT_R4 "," FRT_R5
#define FRT_L112 FRT_L96 "," FRT_R6
#define FRT_L128 FRT_L96 "," FRT_R6 "," FRT_R7
#define FRT_L144 FRT_L128 "," FRT_R8
#define FRT_L160 FRT_L128 "," FRT_R8 "," FRT_R9
#define FRT_L192 FRT_L160 "," FRT_R10 "," FRT_R11
#define FRT_L256 FRT_L192 "," FRT_R12 "," FRT_R13 "," FRT_R14 "," FRT_R15
#define FRT_D(i) \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define FRT_O32 FRT_D(0), FRT_D(8)
#define FRT_O64 FRT_O32, FRT_D(16), FRT_D(24)
#define FRT_O80 FRT_O64, FRT_D(32)
#define FRT_O96 FRT_O64, FRT_D(32), FRT_D(40)
#define FRT_O112 FRT_O96, FRT_D(48)
#define FRT_O128 FRT_O96, FRT_D(48), FRT_D(56)
#define FRT_O144 FRT_O128, FRT_D(64)
#define FRT_O160 FRT_O128, FRT_D(64), FRT_D(72)
#define FRT_O192 FRT_O160, FRT_D(80), FRT_D(88)
#define FRT_O256 FRT_O192, FRT_D(96), FRT_D(104), FRT_D(112), FRT_D(120)

// A, B, P: operand numbers of the two descriptors and of `add` (0 starts a new sum).
#define FRT_WGMMA(N, A, B, P)                                                                                                \
  __device__ __forceinline__ void wgmma(float (&c)[N / 2], uint64_t a, uint64_t b, int add, e4m3) {                          \
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, " P ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {"       \
             FRT_L##N "}, " A ", " B ", p, 1, 1;\n}\n" : FRT_O##N : "l"(a), "l"(b), "r"(add));                               \
  }                                                                                                                          \
  __device__ __forceinline__ void wgmma(float (&c)[N / 2], uint64_t a, uint64_t b, int add, bf16) {                          \
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, " P ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {"       \
             FRT_L##N "}, " A ", " B ", p, 1, 1, 0, 0;\n}\n" : FRT_O##N : "l"(a), "l"(b), "r"(add));                         \
  }
FRT_WGMMA(32, "%16", "%17", "%18")
FRT_WGMMA(64, "%32", "%33", "%34")
FRT_WGMMA(80, "%40", "%41", "%42")
FRT_WGMMA(96, "%48", "%49", "%50")
FRT_WGMMA(112, "%56", "%57", "%58")
FRT_WGMMA(128, "%64", "%65", "%66")
FRT_WGMMA(144, "%72", "%73", "%74")
FRT_WGMMA(160, "%80", "%81", "%82")
FRT_WGMMA(192, "%96", "%97", "%98")
FRT_WGMMA(256, "%128", "%129", "%130")

// a: 64 x 16 BF16 in registers (the accumulator layout, packed), b: [16][256, 64 or 8 columns], read along its rows.
__device__ __forceinline__ void wgmma_values(float (&c)[128], const unsigned (&a)[4], uint64_t b) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %133, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" FRT_L256
           "}, {%128,%129,%130,%131}, %132, p, 1, 1, 1;\n}\n"
           : FRT_O256 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
}

__device__ __forceinline__ void wgmma_values(float (&c)[32], const unsigned (&a)[4], uint64_t b, int add) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %37, 0;\n wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FRT_L64
           "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"
           : FRT_O64 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_values(float (&c)[4], const unsigned (&a)[4], uint64_t b, int add) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %9, 0;\n wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3"
           "}, {%4,%5,%6,%7}, %8, p, 1, 1, 1;\n}\n"
           : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

}  // namespace frt::sm90
