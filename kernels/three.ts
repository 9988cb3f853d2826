// Three spatial axes, depth, height and width, as every convolution and pooling kernel counts them: sizes per axis, their
// uniform fields, and positions in WGSL. Called by conv*.ts, winograd.ts and pool.ts.

import { type Field, wgsl } from "./wgsl.ts";

/** A number per axis. */
export type Three = readonly [number, number, number];

export const volume = (v: Three): number => v[0] * v[1] * v[2];
export const map3 = (f: (i: 0 | 1 | 2) => number): Three => [f(0), f(1), f(2)];

const AXES = ["d", "h", "w"] as const;

/** Uniform fields `name_d`, `name_h` and `name_w`. */
export const axes = (name: string, values: Three): Field[] => values.map((v, i) => [`${name}_${AXES[i]}`, "i32", v]);

/** WGSL of those three as a vector. */
export const vec3 = (name: string): string => `vec3<i32>(u.${name}_d, u.${name}_h, u.${name}_w)`;

/** What windows over data are made of. */
export interface Windows {
  readonly in: Three;
  readonly out: Three;
  readonly kernel: Three;
  readonly stride: Three;
  readonly padding: Three;
  readonly dilation: Three;
}

export const windowFields = (s: Windows): Field[] => [
  ...axes("in", s.in),
  ...axes("out", s.out),
  ...axes("kernel", s.kernel),
  ...axes("stride", s.stride),
  ...axes("padding", s.padding),
  ...axes("dilation", s.dilation),
];

/** A flat position as (d, h, w), and (image, d, h, w) as a flat one. */
export const POSITIONS = wgsl`
  fn unravel(i: u32, size: vec3<i32>) -> vec3<i32> {
    let n = i32(i);
    let row = n / size.z;
    let plane = row / size.y;
    return vec3<i32>(plane, row - plane * size.y, n - row * size.z);
  }
  fn flatten(image: u32, at: vec3<i32>, size: vec3<i32>) -> u32 {
    return u32(((i32(image) * size.x + at.x) * size.y + at.y) * size.z + at.z);
  }
  fn volume(size: vec3<i32>) -> u32 { return u32(size.x * size.y * size.z); }
`;
