// The warp beside the computing ones: empties this block's words of the exchange, and brings the small things of the next layer
// (norm styles, gates, scales) into shared memory a layer ahead, because nobody has read them for a whole step.
// It meets the consumers once in each GEMM phase (`sync_swept`), when this block has received the phase's input and used the
// norm's style. Every block has then consumed what came two exchanges before, so this block's words of that are emptied, and
// the next meeting orders this before whatever the block publishes from then on.
#pragma once
#include "../core/bulk.cuh"
#include "denoise_exchange.cuh"

namespace frt::denoise {

struct SideShared {
  alignas(16) float style[2][D];      // scale of the attention norm (also the final one) and of the MLP norm
  alignas(16) float shift[2][2][64];  // by parity of the layer count, of qkv and of gate and up: the block's columns
  uint64_t style_full[2];
  float inverse[2][4], product[2][4];  // the same: 1 / activation scale, weight scale (of o and down: times the activation scale)
  float gate[2][2][8];                 // the same: attention, MLP; the block's columns
};

template <class T>
struct Sweeper {
  const Args& a;
  SideShared& s;
  const int lane = threadIdx.x % 32, b = blockIdx.x;
  float held = 0;

  // Norm n of a step: 2 i and 2 i + 1 of layer i, 2 L the final one.
  __device__ const float* style(int step, int n) const { return a.styles + (size_t(step) * (2 * a.L + 1) + n) * 3 * D; }
  __device__ void fetch_style(int step, int n, int which) {
    if (step >= a.steps) return;
    uint64_t* const full = s.style_full + which;
    const bool layer = n < 2 * a.L;
    const int tiles = layer ? qkv_tiles(b) : 0, count = step * a.L + n / 2;
    const float* from = a.shifts + size_t(count) * (QKV + 2 * MLP);
    float* to = s.shift[count % 2][which];
    if (lane == 0) {
      barrier_expect(full, 4 * (D + (which ? 64 : tiles * 8)));
      bulk_load(s.style[which], style(step, n), D * 4, full);
    }
    __syncwarp();
    if (which) {
      if (lane < 2) bulk_load(to + lane * 32, from + QKV + lane * MLP + b * 32, 32 * 4, full);
    } else if (lane < tiles) {
      bulk_load(to + lane * 8, from + (b + lane * BLOCKS) * 8, 8 * 4, full);
    }
  }
  // Scales and gates of layer n / L, n % L: the loads, and where they go (a meeting later).
  __device__ void fetch_small(int n) {
    const int step = n / a.L, i = n % a.L;
    if (step >= a.steps) return;
    if (lane < 16) {
      held = style(step, 2 * i + lane / 8)[2 * D + b * 8 + lane % 8];
    } else if (sizeof(T) == 1 && lane < 24) {
      const Layer& w = a.layers[i];
      const int site = lane % 4;
      const float* weight = site == 0 ? w.qkv_scale : site == 1 ? w.o_scale : site == 2 ? w.gate_up_scale : w.down_scale;
      held = a.scales[(size_t(n) * 4 + site) * 4];
      held = lane < 20 ? (site % 2 ? held : 1.0f) * *weight : 1.0f / held;
    } else {
      held = 1;
    }
  }
  __device__ void keep_small(int n) {
    const int to = n % 2;
    if (lane < 16) s.gate[to][lane / 8][lane % 8] = held;
    else if (lane < 20) s.product[to][lane - 16] = held;
    else if (lane < 24) s.inverse[to][lane - 20] = held;
  }

  // Orders the emptying before the next meeting.
  __device__ static void fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
  // This block's BYTES of each interleaved row.
  template <int BYTES>
  __device__ void sweep_rows(size_t to) {
    sweep<BYTES / 16>(a.exchange + to + spread(b * BYTES), a.M, 64);
  }

  __device__ void run() {
    const int M = a.M, tiles = qkv_tiles(b);
    char* const x = a.exchange;
    char* const parts = x + Exchange::PARTS + (size_t(b / SPLITS) * (HD / 16) * ROWS * SPLITS + b % SPLITS) * 64;
    fetch_style(0, 0, 0);
    fetch_style(0, 1, 1);
    fetch_small(0);
    keep_small(0);
    for (int step = 0, n = 0; step < a.steps; ++step) {
      sync_swept();  // the actions are here: the last layer's output was used
      if (step && b < A) fetch_style(step, 0, 0);
      sweep_rows<16>(Exchange::H2);
      for (int i = 0; i < a.L; ++i, ++n) {
        fence();
        sync_swept();  // input of qkv
        fetch_small(n + 1);
        if (i + 1 < a.L) fetch_style(step, 2 * i + 2, 0);
        else if (b < A) fetch_style(step, 2 * a.L, 0);
        else fetch_style(step + 1, 0, 0);
        sweep_rows<32 * sizeof(T)>(Exchange::HIDDEN);
        if (i == 0 && b < A && lane < M) publish(x + Exchange::ACTIONS + (lane * A + b) * 4, EMPTY);
        fence();
        sync_swept();  // heads
        keep_small(n + 1);
        for (int t = 0; t < tiles; ++t) sweep<1>(x + Exchange::PROJ + (b + t * BLOCKS) * 16, M, QKV * 2);
        sweep_rows<16>(i ? Exchange::H2 : Exchange::H0);
        fence();
        sync_swept();  // input of gate/up
        fetch_style((n + 1) / a.L, (n + 1) % a.L * 2 + 1, 1);
        sweep_rows<16 * sizeof(T)>(Exchange::HEADS);
#pragma unroll 4
        for (int u = lane; u < M * (HD / 16) * 4; u += 32)  // 16 bytes u % 4 of 64, row u / 64, columns (u / 4 % 16) * 16
          publish(parts + (u / 4 % (HD / 16) * ROWS + u / (HD / 4)) * SPLITS * 64 + u % 4 * 16,
                  make_uint4(EMPTY, EMPTY, EMPTY, EMPTY));
        sweep<1>(x + Exchange::SUMS + (b / SPLITS * ROWS * SPLITS + b % SPLITS) * 16, M, SPLITS * 16);
        fence();
        sync_swept();  // hidden
        sweep_rows<16>(Exchange::H1);
      }
      fence();
    }
  }
};

}  // namespace frt::denoise
