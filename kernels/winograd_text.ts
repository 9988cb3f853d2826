// The WGSL of Winograd's transforms (winograd.ts): one thread is one channel of one tile, or one weight. It loads a
// small matrix, multiplies it by a constant matrix from either side, and stores the result. Scalars on purpose: a vec4
// would save little and quadruple what has to be compiled.

import { DIVIDE } from "./gemm.ts";
import { MAIN } from "./passes.ts";
import { type Epilogue, storage, wgsl } from "./wgsl.ts";

/** A constant matrix times a column of WGSL values. */
type Transform = (v: readonly string[]) => string[];

/** B^T, G, A^T of F(2, 3) and, for the gradient of the weight, A and G^T: Lavin & Gray 2016, section 4.1. */
const PATCH: Transform = ([d0, d1, d2, d3]) => [`${d0} - ${d2}`, `${d1} + ${d2}`, `${d2} - ${d1}`, `${d1} - ${d3}`];
const WEIGHT: Transform = ([g0, g1, g2]) => [
  g0,
  `0.5f * (${g0} + ${g1} + ${g2})`,
  `0.5f * (${g0} - ${g1} + ${g2})`,
  g2,
];
const RESULT: Transform = ([m0, m1, m2, m3]) => [`${m0} + ${m1} + ${m2}`, `${m1} - ${m2} - ${m3}`];
const RESULT_GRAD: Transform = ([g0, g1]) => [g0, `${g0} + ${g1}`, `${g0} - ${g1}`, `-${g1}`];
const WEIGHT_GRAD: Transform = ([p0, p1, p2, p3]) => [
  `${p0} + 0.5f * (${p1} + ${p2})`,
  `0.5f * (${p1} - ${p2})`,
  `0.5f * (${p1} + ${p2}) + ${p3}`,
];

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Lines that load x00, x01, ... of [size, size] and name f X f^T z00, z01, ...; and the size of the latter. */
function sandwich(size: number, f: Transform, load: (i: number, j: number) => string): { lines: string[]; to: number } {
  const columns = range(size).map((j) => f(range(size).map((i) => `x${i}${j}`)));
  const to = columns[0].length;
  return {
    lines: [
      ...range(size).flatMap((i) => range(size).map((j) => `let x${i}${j} = ${load(i, j)};`)),
      ...range(to).flatMap((i) => range(size).map((j) => `let t${i}${j} = ${columns[j][i]};`)),
      ...range(to).flatMap((i) => f(range(size).map((j) => `t${i}${j}`)).map((z, j) => `let z${i}${j} = ${z};`)),
    ],
    to,
  };
}

/** Thread -> (tile, channel), and where the tile's corner lies in its image: (image, top, left). */
const TILE = `let tile = divide(at, u.n);
  let channel = at - tile * u.n;
  let image = divide(tile, u.tiles);
  let in_image = tile - image * u.tiles;
  let row = divide(in_image, u.tiles_across);
  let top = i32(2u * row) - u.origin_h;
  let left = i32(2u * (in_image - row * u.tiles_across)) - u.origin_w;`;

/** Which rows and columns of a [size, size] patch lie inside of the image: the others are padding. */
const inside = (size: number): string[] =>
  range(size).flatMap((i) => [
    `let row${i} = u32(top + ${i}) < u.height;`,
    `let col${i} = u32(left + ${i}) < u.width;`,
  ]);

/** x [images, height, width, n] -> y [4 x 4, images * tiles, n], from patches of 4 x 4 or, of a gradient, 2 x 2. */
export function patchText(of: "data" | "gradient", uniforms: string): string {
  const size = of === "data" ? 4 : 2;
  const { lines, to } = sandwich(
    size,
    of === "data" ? PATCH : RESULT_GRAD,
    (i, j) => `load(corner, ${i}u, ${j}u, row${i} && col${j})`,
  );
  return wgsl`
    ${storage([
      ["x", "f32"],
      ["y", "f32"],
    ])}
    ${uniforms}
    ${DIVIDE}
    fn load(corner: u32, i: u32, j: u32, hit: bool) -> f32 {
      return select(0f, x[select(0u, corner + (i * u.width + j) * u.n, hit)], hit);
    }
    ${MAIN}
      ${TILE}
      ${inside(size)}
      let corner = ((image * u.height + u32(top)) * u.width + u32(left)) * u.n + channel;
      ${lines}
      ${range(to * to).map((q) => `y[at + ${q}u * u.count] = z${Math.floor(q / to)}${q % to};`)}
    }
  `;
}

/** m [4 x 4, images * tiles, n] -> y [images, height, width, n], with the epilogue. */
export function resultText(uniforms: string, epilogue?: ReturnType<Epilogue["code"]>): string {
  const { lines, to } = sandwich(4, RESULT, (i, j) => `m[at + ${4 * i + j}u * u.count]`);
  return wgsl`
    ${storage([
      ["m", "f32"],
      ...(epilogue?.bindings ?? []).map((e): [string, string] => [e.name, e.type]),
      ["y", "f32"],
    ])}
    ${uniforms}
    ${DIVIDE}
    ${epilogue?.wgsl ?? ""}
    fn put(pixel: u32, channel: u32, hit: bool, value: f32) {
      if (hit) { y[pixel * u.n + channel] = ${epilogue ? "epilogue(value, pixel, channel)" : "value"}; }
    }
    ${MAIN}
      ${TILE}
      ${inside(to)}
      let corner = (image * u.height + u32(top)) * u.width + u32(left);
      ${lines}
      ${range(to * to).map((p) => {
        const [i, j] = [Math.floor(p / to), p % to];
        return `put(corner + ${i}u * u.width + ${j}u, channel, row${i} && col${j}, z${i}${j});`;
      })}
    }
  `;
}

/** A kernel of 3 x 3 taps with any strides -> y [4 x 4, k, n]. A thread is one (k, n). */
export function weightText(uniforms: string): string {
  const { lines, to } = sandwich(3, WEIGHT, (i, j) => `w[first + ${i}u * u.tap_h + ${j}u * u.tap_w]`);
  return wgsl`
    ${storage([
      ["w", "f32"],
      ["y", "f32"],
    ])}
    ${uniforms}
    ${DIVIDE}
    ${MAIN}
      let k = divide(at, u.n);
      let first = u.offset + k * u.stride_k + (at - k * u.n) * u.stride_n;
      ${lines}
      ${range(to * to).map((q) => `y[at + ${q}u * u.count] = z${Math.floor(q / to)}${q % to};`)}
    }
  `;
}

/** p [4 x 4, count] -> y [3 x 3, count]. */
export function weightGradText(uniforms: string): string {
  const { lines, to } = sandwich(4, WEIGHT_GRAD, (i, j) => `p[at + ${4 * i + j}u * u.count]`);
  return wgsl`
    ${storage([
      ["p", "f32"],
      ["y", "f32"],
    ])}
    ${uniforms}
    ${MAIN}
      ${lines}
      ${range(to * to).map((q) => `y[at + ${q}u * u.count] = z${Math.floor(q / to)}${q % to};`)}
    }
  `;
}
