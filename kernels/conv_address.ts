// How a convolution becomes a product of matrices (implicit GEMM): the WGSL functions that find the element of the
// data for an output position and a (tap, channel) pair, without ever writing the unfolded matrix. Called by conv.ts.
//
// An address is the sum of a part that knows the position and a part that knows tap and channel, so that each is
// computed once per tile or block and not per element. Validity is split likewise: a position carries one bit for each
// tap index of each axis that hits data, 10 bits per axis, and a tap the three bits that it needs.

import type { Field, LoadA } from "./gemm.ts";

type Three = readonly [number, number, number];

/** Taps per axis that fit the bit masks. */
export const MAX_TAPS = 10;

/**
 * A walk of taps over data [images, source, channels]. Position p and tap t of an axis hit source element
 * (p * stride + origin + t * step) / divisor, where that is a whole number inside the source.
 */
export interface Walk {
  readonly images: number;
  readonly source: Three;
  readonly channels: number;
  /** Positions per axis. With a divisor: per residue class. */
  readonly grid: Three;
  readonly stride: Three;
  readonly origin: Three;
  readonly step: Three;
  readonly kernel: Three;
}

const AXES = ["d", "h", "w"] as const;
const perAxis = (name: string, type: "u32" | "i32", values: Three): Field[] =>
  values.map((v, i) => [`${name}_${AXES[i]}`, type, v]);

/** Uniforms of `denseWalk` and `stridedWalk`. */
export function walkFields(walk: Walk, load: LoadA): Field[] {
  return [
    ["images", "u32", walk.images],
    ["channels", "u32", walk.channels],
    // Channels in units of one load.
    ["pitch", "u32", walk.channels / (load === "any" ? 1 : 4)],
    ...perAxis("source", "i32", walk.source),
    ...perAxis("grid", "u32", walk.grid),
    ...perAxis("stride", "i32", walk.stride),
    ...perAxis("origin", "i32", walk.origin),
    ...perAxis("step", "i32", walk.step),
    ...perAxis("kernel", "u32", walk.kernel),
  ];
}

const vec3 = (name: string): string => `vec3<i32>(u.${name}_d, u.${name}_h, u.${name}_w)`;

/**
 * Integer division by floats: a software adapter divides integers one lane at a time. x / d must stay below 2^21, so
 * that the quotient of the rounded operands is off by at most one.
 */
const DIVIDE = `
fn divide(x: u32, d: u32) -> u32 {
  let q = u32(f32(x) / f32(d));
  let rest = i32(x - q * d);
  return q + select(0u, 1u, rest >= i32(d)) - select(0u, 1u, rest < 0);
}
fn divide3(x: vec3<i32>, d: vec3<i32>) -> vec3<i32> {
  return vec3<i32>(vec3<u32>(divide(u32(x.x), u32(d.x)), divide(u32(x.y), u32(d.y)), divide(u32(x.z), u32(d.z))));
}`;

/** Splits p into image (w component) and grid coordinates; the largest divisor first keeps the quotients small. */
const COORDINATES = `
fn coordinates(p: u32) -> vec4<i32> {
  let plane = u.grid_h * u.grid_w;
  let image = divide(p, u.grid_d * plane);
  let in_image = p - image * (u.grid_d * plane);
  let z = divide(in_image, plane);
  let in_plane = in_image - z * plane;
  let y = divide(in_plane, u.grid_w);
  return vec4<i32>(vec4<u32>(z, y, in_plane - y * u.grid_w, image));
}
fn flat_source(image: i32, at: vec3<i32>) -> i32 {
  return ((image * u.source_d + at.x) * u.source_h + at.y) * u.source_w + at.z;
}`;

const TAP_INDEX = `
fn tap_index(tap: u32) -> vec3<u32> {
  let plane = u.kernel_h * u.kernel_w;
  let z = divide(tap, plane);
  let in_plane = tap - z * plane;
  let y = divide(in_plane, u.kernel_w);
  return vec3<u32>(z, y, in_plane - y * u.kernel_w);
}`;

const unit = (load: LoadA): string => (load === "any" ? "" : " / 4u");
const element = (load: LoadA): string => (load === "any" ? "f32" : "vec4<f32>");

/** The element at position and tap; zero where the taps stand on padding. */
const fetch = (load: LoadA): string => `
fn fetch(position: vec2<u32>, tap: vec2<u32>) -> ${element(load)} {
  let hit = (position.y & tap.y) == tap.y;
  return select(${load === "any" ? "0f" : "vec4<f32>()"}, a[select(0u, position.x + tap.x, hit)], hit);
}`;

const TAP_BITS = "vec3<u32>(1u, 1024u, 1048576u)";

/** Divisor 1: forward, weight gradient, and the input gradient of a convolution with stride 1 (negative step). */
export function denseWalk(load: LoadA): string {
  return `${DIVIDE}${COORDINATES}${TAP_INDEX}
fn position(p: u32) -> vec2<u32> {
  let c = coordinates(p);
  let first = c.xyz * ${vec3("stride")} + ${vec3("origin")};
  var at = first;
  var mask = vec3<u32>();
  var bit = ${TAP_BITS};
  for (var t = 0u; t < max(u.kernel_d, max(u.kernel_h, u.kernel_w)); t++) {
    mask |= select(vec3<u32>(), bit, (at >= vec3<i32>()) & (at < ${vec3("source")}));
    at += ${vec3("step")};
    bit <<= vec3<u32>(1u);
  }
  return vec2<u32>(u32(flat_source(c.w, first)) * u.pitch, mask.x | mask.y | mask.z);
}
fn tap(k: u32) -> vec2<u32> {
  let index = divide(k, u.channels);
  let t = tap_index(index);
  let offset = u32(flat_source(0, vec3<i32>(t) * ${vec3("step")})) * u.pitch + (k - index * u.channels)${unit(load)};
  return vec2<u32>(offset, (1u << t.x) | (1024u << t.y) | (1048576u << t.z));
}${fetch(load)}`;
}

/**
 * Input gradient of a strided convolution: position p takes the gradient at (p + padding - t * dilation) / stride. Here
 * the fields mean: stride = divisor, origin = padding, step = dilation. Rows are ordered by residue class (p modulo
 * stride), so that all rows of a tile are hit by the same taps and most blocks of k can be skipped.
 */
export function stridedWalk(load: LoadA): string {
  return `${DIVIDE}${COORDINATES}${TAP_INDEX}
fn residue(class_image: i32) -> vec4<i32> {
  let class_index = divide(u32(class_image), u.images);
  let image = u32(class_image) - class_index * u.images;
  let plane = u32(u.stride_h * u.stride_w);
  let z = divide(class_index, plane);
  let in_plane = class_index - z * plane;
  let y = divide(in_plane, u32(u.stride_w));
  return vec4<i32>(vec4<u32>(z, y, in_plane - y * u32(u.stride_w), image));
}
fn position(p: u32) -> vec2<u32> {
  let c = coordinates(p);
  let r = residue(c.w);
  let divisor = ${vec3("stride")};
  let dilation = ${vec3("step")};
  let carry = divide3(r.xyz + ${vec3("origin")}, divisor);
  let remainder = r.xyz + ${vec3("origin")} - carry * divisor;
  let first = c.xyz + carry;
  var left = first * divisor + remainder;
  var tap_remainder = vec3<i32>();
  let step_remainder = dilation - divide3(dilation, divisor) * divisor;
  var mask = vec3<u32>();
  var bit = ${TAP_BITS};
  for (var t = 0u; t < max(u.kernel_d, max(u.kernel_h, u.kernel_w)); t++) {
    let inside = (left >= vec3<i32>()) & (left < ${vec3("source")} * divisor);
    mask |= select(vec3<u32>(), bit, inside & (tap_remainder == remainder));
    left -= dilation;
    tap_remainder += step_remainder;
    tap_remainder -= select(vec3<i32>(), divisor, tap_remainder >= divisor);
    bit <<= vec3<u32>(1u);
  }
  return vec2<u32>(u32(flat_source(r.w, first)) * u.pitch, mask.x | mask.y | mask.z);
}
fn tap(k: u32) -> vec2<u32> {
  let index = divide(k, u.channels);
  let t = tap_index(index);
  let back = -divide3(vec3<i32>(t) * ${vec3("step")}, ${vec3("stride")});
  let offset = u32(flat_source(0, back)) * u.pitch + (k - index * u.channels)${unit(load)};
  return vec2<u32>(offset, (1u << t.x) | (1024u << t.y) | (1048576u << t.z));
}${fetch(load)}`;
}

/** Uniforms and `y_row` for rows in the order of `stridedWalk`: where a row of the gradient of the input is stored. */
export function stridedRows(input: Three): { fields: Field[]; wgsl: string } {
  return {
    fields: perAxis("input", "i32", input),
    wgsl: `
fn y_row(row: u32) -> u32 {
  let c = coordinates(row);
  let r = residue(c.w);
  let at = c.xyz * ${vec3("stride")} + r.xyz;
  let i = ((r.w * u.input_d + at.x) * u.input_h + at.y) * u.input_w + at.z;
  return select(0xffffffffu, u32(i), all(at < ${vec3("input")}));
}`,
  };
}
