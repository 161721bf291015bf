// resize_pad: what fits camera pictures into the model's square.
#include "../ops/resize_pad.cuh"

extern "C" int frt_resize_pad(const void* images, void* out, int V, int H, int W, int S, cudaStream_t stream) {
  frt::Check c("resize_pad", "V=%d, H=%d, W=%d, S=%d", V, H, W, S);
  c.range("V", V, 1, 8);
  c.range("H", H, 1, 4096);
  c.range("W", W, 1, 4096);
  c.range("S", S, 1, 1024);
  c.ptr("images", images, true, 1);
  c.ptr("out", out, true, 1);
  if (c.rc) return c.rc;
  return frt::resize_pad(static_cast<const unsigned char*>(images), static_cast<unsigned char*>(out), V, H, W, S, stream);
}
