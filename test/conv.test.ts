// Grouped, transposed and large convolutions: each against a plain definition in float64 over drawn shapes and options, its
// gradients against central differences, and its messages. Dense ones are ops.test.ts's and kernels_gemm.test.ts's business;
// that torch means the same is the golden cases'.

import { describe, expect, test } from "vitest";
import { Conv, ConvTranspose } from "../engine/nn/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { zeros } from "../engine/tensor.ts";
import { gradientProblem, hvpProblem } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { dataOf, eachPoint, equal, filled, flatOf, inside, law, messages } from "./plain.ts";

interface DrawnConv {
  readonly w: number[];
  readonly o: {
    readonly stride: number[];
    readonly dilation: number[];
    readonly padding: [number, number][];
    readonly groups: number;
    readonly outputPadding: number[];
  };
}

/**
 * A transposed convolution of x and its weight; the result has at least one element. Some groups are wide enough, and some
 * kernels long enough, to be computed in parts.
 */
function drawTransposed(d: Draw): { x: number[]; w: number[]; o: DrawnConv["o"] } {
  const axes = d.int(1, 3);
  const per = <T>(f: () => T): T[] => Array.from({ length: axes }, f);
  const groups = d.int(1, 3);
  const kernel = per(() => d.pick([1, 2, 3, axes === 1 ? 23 : 2]));
  const stride = per(() => d.int(1, 3));
  const dilation = per(() => d.int(1, 2));
  const spatial = per(() => d.int(1, 3));
  const outputPadding = stride.map((s, i) => d.int(0, Math.max(s, dilation[i]) - 1));
  const padding = spatial.map((n, i): [number, number] => {
    const room = (n - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + outputPadding[i];
    const low = d.int(0, Math.min(2, room));
    return [low, d.int(0, Math.min(2, room - low))];
  });
  const [c, f] = d.pick([
    [1, 1],
    [1, 2],
    [2, 1],
    [4, 5],
  ]);
  return {
    x: [d.int(1, 2), ...spatial, c * groups],
    w: [...kernel, f, c * groups],
    o: { stride, dilation, padding, groups, outputPadding },
  };
}

/** Each input element times the kernel, laid `stride` apart: the definition in torch's words. */
function transposedPlain(x: Array64, w: Array64, o: DrawnConv["o"]): Array64 {
  const kernel = w.shape.slice(0, -2);
  const [perGroup, channels] = w.shape.slice(-2);
  const spatial = kernel.map(
    (k, i) =>
      (x.shape[i + 1] - 1) * o.stride[i] -
      o.padding[i][0] -
      o.padding[i][1] +
      o.dilation[i] * (k - 1) +
      o.outputPadding[i] +
      1,
  );
  const out = filled([x.shape[0], ...spatial, perGroup * o.groups], () => 0);
  eachPoint(x.shape, (point, from) => {
    const [b, c] = [point[0], point[point.length - 1]];
    eachPoint([...kernel, perGroup], (tap) => {
      const at = spatial.map((_, i) => point[i + 1] * o.stride[i] + tap[i] * o.dilation[i] - o.padding[i][0]);
      if (!inside(spatial, at)) return;
      const filter = Math.floor(c / (channels / o.groups)) * perGroup + tap[tap.length - 1];
      out.data[flatOf(out.shape, [b, ...at, filter])] += x.data[from] * w.data[flatOf(w.shape, [...tap, c])];
    });
  });
  return out;
}

describe("convolution", () => {
  test("a transposed one spreads its input over the kernel", () => {
    law(60, (d, inputs) => {
      const { x: xs, w: ws, o } = drawTransposed(d);
      const [x, w] = [inputs.make({ shape: xs }), inputs.make({ shape: ws })];
      const want = transposedPlain({ shape: xs, data: dataOf(x, inputs) }, { shape: ws, data: dataOf(w, inputs) }, o);
      return equal(inputs, x.convTranspose(w, o), want);
    });
  });

  test("gradients of a transposed one, first and second", () => {
    law(15, (d, inputs, seed) => {
      const { x: xs, w: ws, o } = drawTransposed(d);
      const [x, w] = [inputs.make({ shape: xs }), inputs.make({ shape: ws })];
      const y = x.convTranspose(w, o);
      return gradientProblem(y, [x, w], inputs, seed) ?? hvpProblem(y, [x, w], inputs, { tolerance: 1e-5 });
    });
  });

  test("groups are convolutions side by side", () => {
    law(30, (d, inputs) => {
      const { x: xs, w: ws, o } = drawTransposed(d);
      const [channels, filters] = [xs[xs.length - 1] / o.groups, ws[ws.length - 2]];
      const x = inputs.make({
        shape: xs.map((n, i) => (i > 0 && i < xs.length - 1 ? n + o.dilation[i - 1] * (ws[i - 1] - 1) : n)),
      });
      const w = inputs.make({ shape: [...ws.slice(0, -2), channels, filters * o.groups] });
      const parts = Array.from({ length: o.groups }, (_, g) =>
        x
          .slice(-1, g * channels, (g + 1) * channels)
          .conv(w.slice(-1, g * filters, (g + 1) * filters), { ...o, groups: 1 }),
      );
      const want = parts[0].concat(parts.slice(1), parts[0].rank - 1);
      return equal(inputs, x.conv(w, o), { shape: want.shape, data: inputs.evaluate([want])[0] });
    });
  });

  test("patches by a matrix product, and kernels beyond the tables' taps", () => {
    law(6, (d, inputs) => {
      const kernel = [d.int(11, 13), d.int(1, 12)];
      const x = inputs.make({ shape: [1, 2 * kernel[0] + d.int(0, 3), kernel[1] + d.int(0, 12), 2] });
      const w = inputs.make({ shape: [...kernel, 2, 3] });
      // Padding of nothing but zeros that are cut off again keeps the other one off the shortcut.
      const padded = x.pad([
        [0, 0],
        [1, 0],
        [0, 0],
        [0, 0],
      ]);
      const shifted = w.pad([
        [1, 0],
        [0, 0],
        [0, 0],
        [0, 0],
      ]);
      const want = padded.conv(shifted, { stride: kernel });
      return equal(inputs, x.conv(w, { stride: kernel }), { shape: want.shape, data: inputs.evaluate([want])[0] });
    });
  });

  test('padding "same" keeps sizes', () => {
    const x = zeros([1, 5, 7, 2]);
    expect(x.conv(zeros([4, 3, 2, 6]), { padding: "same", dilation: [1, 2] }).shape).toEqual([1, 5, 7, 6]);
  });

  test("layers hold weights as torch files have them", () => {
    expect(new Conv(6, 9, [3, 3], { groups: 3 }).weight.shape).toEqual([3, 3, 2, 9]);
    const up = new ConvTranspose(6, 9, [4], { groups: 3, stride: 2, padding: 1 }).seed(1);
    expect(up.weight.shape).toEqual([4, 3, 6]);
    expect([...up.state()].map(([name, p]) => `${name} ${p.layout}`)).toEqual(["weight conv", "bias plain"]);
    expect(up.forward(zeros([2, 5, 6])).shape).toEqual([2, 10, 9]);
  });
});

const images = zeros([2, 8, 8, 6]);
messages([
  [
    "channels",
    () => images.conv(zeros([3, 3, 4, 8])),
    "conv: expected a weight [...kernel, 6, o] for [2, 8, 8, 6], got [3, 3, 4, 8]",
  ],
  [
    "channels of groups",
    () => images.conv(zeros([3, 3, 2, 8]), { groups: 2 }),
    "conv: expected a weight [...kernel, 3, o] (6 in 2 groups) for [2, 8, 8, 6], got [3, 3, 2, 8]",
  ],
  [
    "filters of groups",
    () => images.conv(zeros([3, 3, 2, 8]), { groups: 3 }),
    "conv: the 8 filters of [3, 3, 2, 8] do not divide into 3 groups",
  ],
  [
    "ranks",
    () => images.conv(zeros([3, 6, 8])),
    'conv: expected "b ...spatial c" and "...kernel c o" of one rank from 3 to 5, got [2, 8, 8, 6] and [3, 6, 8]',
  ],
  [
    "strides",
    () => images.conv(zeros([3, 3, 6, 8]), { stride: [1, 2, 3] }),
    "conv: expected stride for 2 axes, got [1, 2, 3]",
  ],
  [
    "no stride",
    () => images.conv(zeros([3, 3, 6, 8]), { stride: 0 }),
    "conv: expected stride of whole numbers from 1, got [0, 0]",
  ],
  [
    "same",
    () => images.conv(zeros([3, 3, 6, 8]), { padding: "same", stride: 2 }),
    'conv: padding "same" needs stride 1, got [2]',
  ],
  [
    "channels of a transposed one",
    () => images.convTranspose(zeros([3, 3, 8, 4])),
    "convTranspose: expected a weight [...kernel, o / groups, 6] and groups that divide 6 for [2, 8, 8, 6]",
  ],
  [
    "output padding",
    () => images.convTranspose(zeros([3, 3, 8, 6]), { stride: 2, outputPadding: 2 }),
    "convTranspose: outputPadding [2, 2] must be smaller than the stride [2, 2]",
  ],
  [
    "nothing left",
    () => images.convTranspose(zeros([1, 1, 8, 6]), { padding: 4 }),
    "convTranspose: padding leaves nothing of [2, 8, 8, 6]: sizes [0, 0]",
  ],
]);
