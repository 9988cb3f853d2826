// How a convolution becomes a product of matrices (implicit GEMM): a small pass writes, for every position and every
// (tap, channel) pair, half of an address; the product adds two halves and never writes the unfolded matrix. Tables
// because a software adapter divides integers one lane at a time, and because the product's text is then the same for
// every geometry, stride and direction, so that one pipeline serves them all. Called by conv.ts.
//
// Validity is split like the address: a position carries one bit for each tap index of each axis that hits data, 10
// bits per axis, and a tap the three bits it needs.

import type { LoadA } from "./gemm.ts";
import { axes, map3, type Three, vec3, volume } from "./three.ts";
import { type Caps, foldGrid, type KernelSource, storage, uniforms, wgsl } from "./wgsl.ts";

/** Taps per axis that fit the bit masks. */
export const MAX_TAPS = 10;

/**
 * A walk of taps over data [images, ...source, channels]. Position p and tap t of an axis hit source element
 * (p * stride + origin + t * step) / divisor, where that is a whole number inside the source.
 */
export interface Walk {
  readonly images: number;
  readonly source: Three;
  readonly channels: number;
  readonly positions: Three;
  readonly kernel: Three;
  readonly stride: Three;
  readonly origin: Three;
  readonly step: Three;
  /** Where it exceeds 1, rows are ordered by p modulo divisor, so that all rows of a tile are hit by the same taps. */
  readonly divisor: Three;
  /** Positions stay in the order of memory: they are k, and the other operand has that order. */
  readonly keepOrder?: boolean;
}

/** Positions per axis and residue class. */
const grid = (w: Walk): Three => map3((i) => Math.ceil(w.positions[i] / w.divisor[i]));

/** Rows of the table that are positions: a few more than there are where a divisor does not divide. */
export const positionRows = (w: Walk): number => w.images * volume(w.divisor) * volume(grid(w));

/**
 * True when so many taps stand on padding (small images, the ends of time) that rows of one tile should be the same
 * position of different images: the product then skips whole blocks of k.
 */
function imagesFastest(w: Walk): boolean {
  if (w.keepOrder) return false;
  const hits = map3((i) => {
    let count = 0;
    for (let p = 0; p < w.positions[i]; p++)
      for (let t = 0; t < w.kernel[i]; t++) {
        const at = p * w.stride[i] + w.origin[i] + t * w.step[i];
        if (at >= 0 && at < w.source[i] * w.divisor[i]) count++;
      }
    return count / (w.positions[i] * w.kernel[i]);
  });
  return w.images >= 8 && volume(hits) < 0.9;
}

/**
 * Writes vec4(address, mask, output row, 0) for each position and vec4(offset, bits, 0, 0) for each (tap, channel).
 * Addresses count loads of A. Positions that only fill up a residue class get an output row past the end.
 */
export function tablePass(w: Walk, load: LoadA, caps: Caps): { elements: number; source: KernelSource } {
  const spots = volume(grid(w));
  const rows = positionRows(w);
  const entries = rows + volume(w.kernel) * w.channels;
  const workgroups = foldGrid(Math.ceil(entries / 64), caps);
  const fast = imagesFastest(w);
  const unit = load === "any" ? 1 : 4;
  const u = uniforms(1, [
    ["rows", "u32", rows],
    ["entries", "u32", entries],
    ["grid_width", "u32", workgroups[0]],
    ["images", "i32", w.images],
    ["image_pitch", "i32", fast ? 1 : spots],
    ["spots", "i32", spots],
    ["spot_pitch", "i32", fast ? w.images : 1],
    ["channels", "i32", w.channels],
    ["unit", "i32", unit],
    ...axes("source", w.source),
    ...axes("positions", w.positions),
    ...axes("grid", grid(w)),
    ...axes("kernel", w.kernel),
    ...axes("stride", w.stride),
    ...axes("origin", w.origin),
    ...axes("step", w.step),
    ...axes("divisor", w.divisor),
  ]);
  return {
    elements: 4 * entries,
    source: { label: "conv table", wgsl: tableText(u.wgsl), workgroups, uniforms: u.words },
  };
}

const tableText = (uniformText: string): string => wgsl`
  ${storage([["table", "vec4<u32>"]])}
  ${uniformText}
  fn unflatten(i: i32, size: vec3<i32>) -> vec3<i32> {
    return vec3<i32>(i / (size.y * size.z), (i / size.z) % size.y, i % size.z);
  }
  fn flatten(image: i32, at: vec3<i32>, size: vec3<i32>) -> i32 {
    return ((image * size.x + at.x) * size.y + at.y) * size.z + at.z;
  }
  fn position(i: i32) -> vec4<u32> {
    let source = ${vec3("source")};
    let divisor = ${vec3("divisor")};
    let image = (i / u.image_pitch) % u.images;
    let residue = unflatten(i / (u.images * u.spots), divisor);
    let at = unflatten((i / u.spot_pitch) % u.spots, ${vec3("grid")}) * divisor + residue;
    let start = at * ${vec3("stride")} + ${vec3("origin")};
    let rest = (start % divisor + divisor) % divisor;
    var mask = vec3<u32>();
    for (var t = 0; t < max(u.kernel_d, max(u.kernel_h, u.kernel_w)); t++) {
      let hit = start + t * ${vec3("step")};
      let inside = (hit >= vec3<i32>()) & (hit < source * divisor) & (hit % divisor == vec3<i32>());
      mask |= select(vec3<u32>(), vec3<u32>(1u, 1024u, 1048576u) << vec3<u32>(u32(t)), inside);
    }
    let address = flatten(image, (start - rest) / divisor, source) * (u.channels / u.unit);
    let row = flatten(image, at, ${vec3("positions")});
    let kept = all(at < ${vec3("positions")});
    return vec4<u32>(u32(address), mask.x | mask.y | mask.z, select(0xffffffffu, u32(row), kept), 0u);
  }
  fn tap(i: i32) -> vec4<u32> {
    let t = unflatten(i / u.channels, ${vec3("kernel")});
    let moved = t * ${vec3("step")} / ${vec3("divisor")};
    let offset = flatten(0, moved, ${vec3("source")}) * (u.channels / u.unit) + (i % u.channels) / u.unit;
    return vec4<u32>(u32(offset), (1u << u32(t.x)) | (1024u << u32(t.y)) | (1048576u << u32(t.z)), 0u, 0u);
  }
  @compute @workgroup_size(64)
  fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (wg.y * u.grid_width + wg.x) * 64u + lane;
    if (i < u.rows) {
      table[i] = position(i32(i));
    } else if (i < u.entries) {
      table[i] = tap(i32(i - u.rows));
    }
  }
`;

/** Address functions of a product whose A is the data: rows are positions and k is (tap, channel), or the reverse. */
export function addressA(load: LoadA, rows: "positions" | "taps"): string {
  const [row, col] = rows === "positions" ? ["row", "u.tap_base + k"] : ["u.tap_base + row", "k"];
  const [position, tap] = rows === "positions" ? ["r", "c"] : ["c", "r"];
  const [type, zero] = load === "any" ? ["f32", "0f"] : ["vec4<f32>", "vec4<f32>()"];
  return `
fn entry(i: u32) -> vec2<u32> { return vec2<u32>(table[i].x, table[i].y); }
fn a_row(batch: u32, row: u32) -> vec2<u32> { return entry(${row}); }
fn a_col(k: u32) -> vec2<u32> { return entry(${col}); }
fn a_at(r: vec2<u32>, c: vec2<u32>) -> ${type} {
  let hit = (${position}.y & ${tap}.y) == ${tap}.y;
  return select(${zero}, a[select(0u, r.x + c.x, hit)], hit);
}`;
}

/** Stores a row where its position belongs: the table may hold positions in another order. */
export const ROW_OF_POSITION = "fn y_row(row: u32) -> u32 { return table[row].z; }";
