// The one place where arrays as torch lays them out become arrays as they lie here: pictures and videos channels last,
// convolution kernels [...kernel, in, out]. On the host, for the few numbers of golden folders.

import type { Shape } from "../../engine/shape.ts";
import type { Parameter } from "../../engine/state.ts";

/** What an array needs for its axes to be moved; files.ts has those of golden folders. */
export interface Values {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** Reorders axes: result axis i is source axis order[i]. */
export function permuted<T extends Values>(x: T, order: readonly number[]): T {
  const { shape, data } = x;
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const to = order.map((o) => shape[o]);
  const out = data.map((_, flat) => {
    let [rest, at] = [flat, 0];
    for (let i = to.length - 1; i >= 0; i--) {
      at += (rest % to[i]) * strides[order[i]];
      rest = Math.floor(rest / to[i]);
    }
    return data[at];
  });
  return { ...x, shape: to, data: out };
}

/** [n, c, ...spatial] -> [n, ...spatial, c]; `from` is where the channels are. */
export function channelsLast<T extends Values>(x: T, from = 1): T {
  const axes = x.shape.map((_, i) => i);
  return permuted(x, [...axes.filter((i) => i !== from), from]);
}

/** A weight, or its gradient, as the parameter holds it. */
export function asParameter<T extends Values>(x: T, p: Parameter): T {
  const axes = x.shape.map((_, i) => i);
  return p.layout === "conv" && axes.length > 2 ? permuted(x, [...axes.slice(2), 1, 0]) : x;
}
