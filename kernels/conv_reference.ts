// The definition of convolution as a loop over its multiply-adds, and random specs for tests. No WGSL. Called by conv.ts.

import type { ConvSpec } from "./conv.ts";
import type { Draw } from "./wgsl.ts";

/** Calls `visit` with the flat indices of x, weight and y of every multiply-add that does not fall on padding. */
export function convReference(s: ConvSpec, visit: (x: number, w: number, y: number) => void): void {
  const [kd, kh, kw] = s.kernel;
  const [od, oh, ow] = s.out;
  for (let p = 0; p < s.batch * od * oh * ow; p++) {
    const image = Math.floor(p / (od * oh * ow));
    const at = [Math.floor(p / (oh * ow)) % od, Math.floor(p / ow) % oh, p % ow];
    for (let t = 0; t < kd * kh * kw; t++) {
      const tap = [Math.floor(t / (kh * kw)), Math.floor(t / kw) % kh, t % kw];
      const [z, y, x] = at.map((a, i) => a * s.stride[i] - s.padding[i] + tap[i] * s.dilation[i]);
      if (z < 0 || y < 0 || x < 0 || z >= s.in[0] || y >= s.in[1] || x >= s.in[2]) continue;
      const pixel = ((image * s.in[0] + z) * s.in[1] + y) * s.in[2] + x;
      for (let c = 0; c < s.channels; c++)
        for (let f = 0; f < s.filters; f++)
          visit(pixel * s.channels + c, (t * s.channels + c) * s.filters + f, p * s.filters + f);
    }
  }
}

const MAX_MACS = 200_000;

/** Kernels, strides and paddings as models use them, and some that they do not; sizes around the tiles' edges. */
export function drawConv(d: Draw): ConvSpec {
  const [kernel, stride, dilation] = d.pick([
    [
      [1, 3, 3],
      [1, 1, 1],
      [1, 1, 1],
    ],
    [
      [1, 3, 3],
      [1, 2, 2],
      [1, 1, 1],
    ],
    [
      [3, 1, 1],
      [1, 1, 1],
      [1, 1, 1],
    ],
    [
      [1, 1, 1],
      [1, 2, 2],
      [1, 1, 1],
    ],
    [
      [2, 2, 3],
      [1, 1, 1],
      [1, 2, 1],
    ],
    [
      [1, 4, 3],
      [2, 3, 2],
      [1, 2, 1],
    ],
  ] as const);
  const size = (): [number, number, number] => [d.pick([1, 2, 4]), d.pick([1, 2, 5, 8]), d.pick([1, 3, 4, 8])];
  const [input, low, high] = [size(), d.int(0, 1), d.int(0, 1)];
  const reach = ([0, 1, 2] as const).map((i) => dilation[i] * (kernel[i] - 1) + 1);
  // Padding only where taps reach; enough of it for one output at least.
  const padding = reach.map((r) => (r > 1 ? low : 0));
  const behind = reach.map((r, i) => Math.max(r > 1 ? high : 0, r - input[i] - padding[i]));
  const out = input.map((n, i) => Math.floor((n + padding[i] + behind[i] - reach[i]) / stride[i]) + 1);
  const three = (v: readonly number[]): [number, number, number] => [v[0], v[1], v[2]];
  const positions = out[0] * out[1] * out[2] * kernel[0] * kernel[1] * kernel[2];
  const channels = d.pick([1, 3, 4, 8, 12, 16, 33]);
  const filters = d.pick([3, 4, 8, 16, 17, 32, 36].filter((f) => f * channels * positions <= MAX_MACS || f <= 4));
  const batch = d.pick([1, 2, 3].filter((b) => b === 1 || b * filters * channels * positions <= MAX_MACS));
  return {
    batch,
    in: three(input),
    out: three(out),
    channels,
    filters,
    kernel,
    stride,
    padding: three(padding),
    dilation,
  };
}
