// Functions of images [b, h, w, c] that move or sample pixels: pixel shuffle, patches, sampling at given points. Order of
// channels and coordinates is torch's, with channels last.

import { ShapeError, show } from "../error.ts";
import type { Tensor } from "../tensor.ts";
import { stack } from "./indexing.ts";

/** Channels to pixels: [b, h, w, c r r] -> [b, h r, w r, c] (Shi et al. 2016). */
export function pixelShuffle(x: Tensor, r: number): Tensor {
  return x.rearrange("b h w (c p q) -> b (h p) (w q) c", { p: r, q: r });
}

/** Pixels to channels: [b, h r, w r, c] -> [b, h, w, c r r]. */
export function pixelUnshuffle(x: Tensor, r: number): Tensor {
  return x.rearrange("b (h p) (w q) c -> b h w (c p q)", { p: r, q: r });
}

type Pair = number | readonly [number, number];
const pair = (v: Pair): readonly [number, number] => (typeof v === "number" ? [v, v] : v);

export interface UnfoldOptions {
  readonly kernel: Pair;
  readonly stride?: Pair;
  readonly padding?: Pair;
  readonly dilation?: Pair;
}

/** Sliding patches (im2col): [b, h, w, c] -> [b, rows, columns, c kh kw], the patch's features in that order. */
export function unfold(x: Tensor, o: UnfoldOptions): Tensor {
  const { b, h, w, c } = x.dims("b h w c");
  const [kernel, stride, pad, step] = [
    pair(o.kernel),
    pair(o.stride ?? 1),
    pair(o.padding ?? 0),
    pair(o.dilation ?? 1),
  ];
  const sizes = [h, w].map((n, i) => Math.floor((n + 2 * pad[i] - step[i] * (kernel[i] - 1) - 1) / stride[i]) + 1);
  if (sizes.some((n) => n < 1))
    throw new ShapeError(`unfold: a ${kernel.join(" x ")} patch does not fit ${show(x.shape)}`);
  const wide = x.pad([
    [0, 0],
    [pad[0], pad[0]],
    [pad[1], pad[1]],
    [0, 0],
  ]);
  const along = (y: Tensor, i: number, k: number): Tensor => {
    const start = k * step[i];
    return y.slice(i + 1, start, start + (sizes[i] - 1) * stride[i] + 1, stride[i]);
  };
  const offsets = Array.from({ length: kernel[0] * kernel[1] }, (_, k) => k);
  const parts = offsets.map((k) => along(along(wide, 0, Math.floor(k / kernel[1])), 1, k % kernel[1]));
  return stack(parts, -1).reshape([b, ...sizes, c * kernel[0] * kernel[1]]);
}

export interface GridSampleOptions {
  readonly mode?: "bilinear" | "nearest";
  /** What lies outside: zeros, the nearest border pixel, or the image mirrored at its borders. */
  readonly padding?: "zeros" | "border" | "reflection";
  /** -1 and 1 are the centres of the outer pixels rather than their outer edges. */
  readonly alignCorners?: boolean;
}

/**
 * Pixels at given points: x [b, h, w, c], grid [b, rows, columns, 2] of (x, y) in [-1, 1] over the image
 * -> [b, rows, columns, c] (Jaderberg et al. 2015).
 */
export function gridSample(x: Tensor, grid: Tensor, o: GridSampleOptions = {}): Tensor {
  const { b, h, w, c } = x.dims("b h w c");
  if (grid.rank !== 4 || grid.shape[0] !== b || grid.shape[3] !== 2)
    throw new ShapeError(
      `gridSample: expected a grid "${b} rows columns 2" for ${show(x.shape)}, got ${show(grid.shape)}`,
    );
  const column = inPixels(grid.slice(3, 0, 1), w, o);
  const row = inPixels(grid.slice(3, 1, 2), h, o);
  const image = grid
    .arange(b)
    .reshape([b, 1, 1, 1])
    .mul(h * w);
  const table = x.reshape([b * h * w, c]);
  /** Pixels at whole coordinates; zero outside. */
  const pixels = (r: Tensor, q: Tensor): Tensor => {
    const at = r
      .clamp(0, h - 1)
      .cast("i32")
      .mul(w)
      .add(q.clamp(0, w - 1).cast("i32"))
      .add(image);
    const inside = within(r, h).and(within(q, w));
    return inside.where(table.gatherRows(at.reshape(at.shape.slice(0, 3))), 0);
  };
  if (o.mode === "nearest") return pixels(row.round(), column.round());
  const [top, left] = [row.floor(), column.floor()];
  const [down, right] = [row.sub(top), column.sub(left)];
  const mix = (from: Tensor, to: Tensor, t: Tensor): Tensor => from.mul(t.neg().add(1)).add(to.mul(t));
  const upper = mix(pixels(top, left), pixels(top, left.add(1)), right);
  const lower = mix(pixels(top.add(1), left), pixels(top.add(1), left.add(1)), right);
  return mix(upper, lower, down);
}

function within(at: Tensor, n: number): Tensor {
  return at.greaterEqual(0).and(at.lessEqual(n - 1));
}

/** Coordinates in [-1, 1] as pixels 0 to n - 1, brought inside the way the padding says. */
function inPixels(at: Tensor, n: number, { alignCorners = false, padding = "zeros" }: GridSampleOptions): Tensor {
  const pixel = alignCorners
    ? at.add(1).mul((n - 1) / 2)
    : at
        .add(1)
        .mul(n / 2)
        .sub(0.5);
  if (padding === "zeros") return pixel;
  if (padding === "border") return clip(pixel, n);
  return clip(alignCorners ? mirror(pixel, 0, n - 1) : mirror(pixel, -0.5, n), n);
}

/** Into [0, n - 1], with slope 0 at the ends, as in torch. */
function clip(at: Tensor, n: number): Tensor {
  return at
    .greater(0)
    .and(at.less(n - 1))
    .where(at, at.clamp(0, n - 1).detach());
}

/** Mirrored at `low` and `low + span` as often as it takes. */
function mirror(at: Tensor, low: number, span: number): Tensor {
  if (span === 0) return at.mul(0);
  const distance = at.sub(low).abs();
  const flips = distance.mul(1 / span).floor();
  const rest = distance.sub(flips.mul(span));
  const odd = flips.sub(flips.mul(0.5).floor().mul(2)).greater(0.5);
  return odd.where(rest.neg().add(span), rest).add(low);
}
