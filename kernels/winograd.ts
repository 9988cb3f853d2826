// 3 x 3 convolutions with stride 1 and their gradients in 2.25 times fewer multiplications: Winograd's F(2 x 2, 3 x 3)
// after Lavin & Gray 2016 (arXiv 1509.09308). y = A^T [(G w G^T) * (B^T x B)] A for each 2 x 2 tile of y, where the
// elementwise product, summed over channels, is 16 products of matrices: matmul.ts computes them. Variants of the
// families in conv.ts; the transforms' WGSL is in winograd_text.ts.

import type { ConvSpec } from "./conv.ts";
import { Passes, rows } from "./passes.ts";
import type { Three } from "./three.ts";
import type { Caps, Field, Lowered, Variant } from "./wgsl.ts";
import { patchText, resultText, weightGradText, weightText } from "./winograd_text.ts";

/** Products of matrices: elements of a transformed 4 x 4 patch. */
const POINTS = 16;
/** Operations of one transform (the paper's section 4.1); its transpose takes about as many. */
const COST = { patch: 32, weight: 28, result: 24 };
/** Harmonic mean of channels and filters: with fewer the transforms, which touch each, cost what the products save. */
const FEWEST_CHANNELS = 24;
/** Tiles among which the transformed weights, 16/9 as large as the weights, are shared. */
const FEWEST_TILES = 64;
/** Elements of scratch, 32 MiB: transformed data is 4 times as large as the data, and lives beside it. */
const MOST_SCRATCH = 2 ** 23;

/** Images of height x width, cut into tiles of 2 x 2; depth counts as more images. */
interface Plane {
  readonly images: number;
  readonly height: number;
  readonly width: number;
}
const plane = (batch: number, [depth, height, width]: Three): Plane => ({ images: batch * depth, height, width });
const across = (p: Plane): number => Math.ceil(p.width / 2);
const tilesOf = (p: Plane): number => Math.ceil(p.height / 2) * across(p);

const legal = (s: ConvSpec): boolean =>
  s.kernel.join() === "1,3,3" &&
  s.stride.every((n) => n === 1) &&
  s.dilation.every((n) => n === 1) &&
  s.padding[0] === 0 &&
  s.in[0] === s.out[0];

/** `tiled`: the positions that are cut into tiles. */
function worthwhile(s: ConvSpec, tiled: Three, caps: Caps): boolean {
  const { channels, filters } = s;
  const all = plane(s.batch, tiled);
  const tiles = all.images * tilesOf(all);
  const scratch = POINTS * (tiles * (channels + filters) + channels * filters);
  return (
    caps.adapter === "cpu" &&
    caps.subgroupSize > 0 &&
    (2 * channels * filters) / (channels + filters) >= FEWEST_CHANNELS &&
    tiles >= FEWEST_TILES &&
    scratch <= MOST_SCRATCH
  );
}

const tiling = (p: Plane, n: number, origin: readonly [number, number]): Field[] => [
  ["n", "u32", n],
  ["tiles", "u32", tilesOf(p)],
  ["tiles_across", "u32", across(p)],
  ["origin_h", "i32", origin[0]],
  ["origin_w", "i32", origin[1]],
];
const size = (p: Plane): Field[] => [
  ["height", "u32", p.height],
  ["width", "u32", p.width],
];

/** Convolution of `data` (k channels) to `results` (n channels) with padding `origin`; operands 0 and 1, result 2. */
function convolve(
  s: ConvSpec,
  [data, results]: readonly [Plane, Plane],
  [k, n]: readonly [number, number],
  origin: readonly [number, number],
  weight: readonly Field[],
  caps: Caps,
): Lowered {
  const extras = s.epilogue?.operands ?? 0;
  const y = 2 + extras;
  const p = new Passes(y + 1, caps);
  const tiles = results.images * tilesOf(results);
  const [u, v, m] = [k * n, tiles * k, tiles * n].map((count) => p.buffer(POINTS * count));
  p.add("winograd weight", k * n, COST.weight, [1, u], [["n", "u32", n], ...weight], weightText);
  p.add("winograd patches", tiles * k, COST.patch, [0, v], [...tiling(results, k, origin), ...size(data)], (t) =>
    patchText("data", t),
  );
  p.product({ m: tiles, n, k, batch: [POINTS, 1], a: rows(tiles, k), b: rows(k, n) }, v, u, m);
  const operands = [m, ...Array.from({ length: extras }, (_, i) => 2 + i), y];
  const label = ["winograd result", s.epilogue?.label].filter(Boolean).join(" ");
  p.add(label, tiles * n, COST.result, operands, [...tiling(results, n, [0, 0]), ...size(results)], (t) =>
    resultText(t, s.epilogue?.code(1)),
  );
  return p;
}

function forward(s: ConvSpec, caps: Caps): Lowered {
  const [k, n] = [s.channels, s.filters];
  const planes = [plane(s.batch, s.in), plane(s.batch, s.out)] as const;
  return convolve(s, planes, [k, n], [s.padding[1], s.padding[2]], taps(0, 3 * k * n, k * n, n, 1), caps);
}

/** gx is the convolution of gy with the kernel turned round and 2 - padding zeros before the data. */
function inputGrad(s: ConvSpec, caps: Caps): Lowered {
  const [k, n] = [s.filters, s.channels];
  const planes = [plane(s.batch, s.out), plane(s.batch, s.in)] as const;
  const turned = taps(8 * k * n, -3 * k * n, -k * n, 1, k);
  return convolve(s, planes, [k, n], [2 - s.padding[1], 2 - s.padding[2]], turned, caps);
}

/** Where tap (i, j) of weight (k, n) lies. Negative strides wrap around, and so does their sum with the offset. */
const taps = (offset: number, h: number, w: number, k: number, n: number): Field[] => [
  ["offset", "u32", offset],
  ["tap_h", "u32", h],
  ["tap_w", "u32", w],
  ["stride_k", "u32", k],
  ["stride_n", "u32", n],
];

/** gw = G^T [sum over tiles of (B^T x B)^T (A gy A^T)] G. */
function weightGrad(s: ConvSpec, caps: Caps): Lowered {
  const [x, y] = [plane(s.batch, s.in), plane(s.batch, s.out)];
  const { channels: m, filters: n } = s;
  const p = new Passes(3, caps);
  const tiles = y.images * tilesOf(y);
  const [v, g, w] = [tiles * m, tiles * n, m * n].map((count) => p.buffer(POINTS * count));
  const origin = [s.padding[1], s.padding[2]] as const;
  const [data, gradient] = [
    [...tiling(y, m, origin), ...size(x)],
    [...tiling(y, n, [0, 0]), ...size(y)],
  ];
  p.add("winograd patches", tiles * m, COST.patch, [0, v], data, (t) => patchText("data", t));
  p.add("winograd gradient", tiles * n, COST.result, [1, g], gradient, (t) => patchText("gradient", t));
  const a = { ...rows(tiles, m), row: 1, col: m };
  p.product({ m, n, k: tiles, batch: [POINTS, 1], a, b: rows(tiles, n) }, v, g, w);
  p.add("winograd weight grad", m * n, COST.weight, [w, 2], [], weightGradText);
  return p;
}

/**
 * Idea: of four or five passes all but the products are cheap. A thread of these is one channel of one tile; their
 * traffic is the data 4 times (a gradient once) and the transformed data, 4 times as large, once each way. Wins on
 * software adapters, where multiply-adds are dear: measured 1.2 to 2 times as fast as the tiles at 64 channels, both
 * ways. Rounding errors are a little larger. `anywhere` supports what it can, for tuning and tests, `where` what it
 * should.
 */
function variants(
  emit: (s: ConvSpec, caps: Caps) => Lowered,
  tiled: (s: ConvSpec) => Three,
): { where: Variant<ConvSpec>; anywhere: Variant<ConvSpec> } {
  const anywhere: Variant<ConvSpec> = { name: "winograd", epilogues: "bias", supports: legal, emit };
  const where = { ...anywhere, supports: (s: ConvSpec, caps: Caps) => legal(s) && worthwhile(s, tiled(s), caps) };
  return { where, anywhere };
}

export const winogradForward = variants(forward, (s) => s.out);
export const winogradInputGrad = variants(inputGrad, (s) => s.in);
export const winogradWeightGrad = variants(weightGrad, (s) => s.out);
