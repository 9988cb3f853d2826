// Convolutions that are sums or joins of smaller ones which the tiles of kernels/conv.ts take: kernels with more taps along
// an axis than its tables count, and groups wide enough for a matrix product. Narrow groups and depthwise ones stay with the
// direct kernels. Called by tensor/product.ts, on tensors lifted to three spatial axes.

import { MAX_TAPS } from "../../kernels/conv_table.ts";
import type { Tensor } from "../tensor.ts";
import type { ConvAttrs, InputGradAttrs, Three } from "./conv.ts";

/** Narrowest groups, of channels and of filters, for which a product pays. */
const WIDE = 4;
/** Channels that a part should have, and the most parts. */
const CHANNELS = 16;
const PARTS = 16;

/** One part: a convolution or its transpose, of a weight [kd, kh, kw, c, o]. */
type Part<A extends ConvAttrs> = (x: Tensor, w: Tensor, a: A) => Tensor;

/** x.convWith(w, a), in parts where that is faster. */
export function convolve(x: Tensor, w: Tensor, a: ConvAttrs): Tensor {
  return inParts(x, w, a, w.shape[3], (x, w, a) => x.convWith(w, a));
}

/** x.convInputGrad(w, a), in parts where that is faster. */
export function convolveBack(x: Tensor, w: Tensor, a: InputGradAttrs): Tensor {
  return inParts(x, w, a, w.shape[4] / a.groups, (x, w, a) => x.convInputGrad(w, a));
}

/** `width`: channels of x per group. */
function inParts<A extends ConvAttrs>(x: Tensor, w: Tensor, a: A, width: number, part: Part<A>): Tensor {
  const narrow = Math.min(w.shape[3], w.shape[4] / a.groups) < WIDE;
  if (a.groups === 1) return byTaps(x, w, a, 0, part);
  return narrow ? part(x, w, a) : byGroups(x, w, a, width, part);
}

/** The smallest divisor of `groups` that makes parts of enough channels, and not too many of them. */
function groupsPerPart(groups: number, width: number): number {
  const least = Math.max(Math.ceil(CHANNELS / width), Math.ceil(groups / PARTS));
  let together = Math.min(least, groups);
  while (groups % together !== 0) together++;
  return together;
}

function byGroups<A extends ConvAttrs>(x: Tensor, w: Tensor, a: A, width: number, part: Part<A>): Tensor {
  const together = groupsPerPart(a.groups, width);
  const wide = together === 1 ? w : blockDiagonal(w, a.groups, together);
  const parts = a.groups / together;
  const [channels, filters] = [together * width, w.shape[4] / parts];
  const pieces = Array.from({ length: parts }, (_, p) =>
    byTaps(
      x.slice(4, p * channels, (p + 1) * channels),
      wide.slice(4, p * filters, (p + 1) * filters),
      { ...a, groups: 1 },
      0,
      part,
    ),
  );
  return pieces.length === 1 ? pieces[0] : pieces[0].concat(pieces.slice(1), 4);
}

/** [..., c, o] of single groups -> [..., together * c, o]: zero where a channel is of another group than the filter. */
function blockDiagonal(w: Tensor, groups: number, together: number): Tensor {
  const [kd, kh, kw, c, o] = w.shape;
  const own = w
    .arange(together)
    .reshape([together, 1])
    .equal(w.arange(together).reshape([1, together]))
    .cast(w.dtype);
  return w
    .reshape([kd * kh * kw, 1, c, groups / together, together, o / groups])
    .mul(own.reshape([1, together, 1, 1, together, 1]))
    .reshape([kd, kh, kw, together * c, o]);
}

/**
 * Sums over runs of at most MAX_TAPS taps of each axis. A run that starts at tap t sees the data t dilation further on: so
 * much less padding before it, which may be negative, and more behind.
 */
function byTaps<A extends ConvAttrs>(x: Tensor, w: Tensor, a: A, axis: number, part: Part<A>): Tensor {
  if (axis === 3) return part(x, w, a);
  const taps = w.shape[axis];
  const runs = Math.ceil(taps / MAX_TAPS);
  const edge = (i: number): number => Math.round((i * taps) / runs);
  const terms = Array.from({ length: runs }, (_, i) => {
    const moved = (side: Three, by: number): Three => {
      const [d, h, v] = side.map((p, j) => (j === axis ? p - by * a.dilation[axis] : p));
      return [d, h, v];
    };
    const run = { ...a, low: moved(a.low, edge(i)), high: moved(a.high, taps - edge(i + 1)) };
    return byTaps(x, w.slice(axis, edge(i), edge(i + 1)), run, axis + 1, part);
  });
  return terms.reduce((sum, term) => sum.add(term));
}
