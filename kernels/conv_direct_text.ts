// The WGSL of conv_direct.ts: loops over taps and channels, with every size in the uniforms, so that there is one text per
// direction and lane layout. Called by conv_direct.ts only.

import { POSITIONS, vec3 } from "./three.ts";
import { type Epilogue, storage, wgsl } from "./wgsl.ts";

/**
 * What the four lanes of a thread are: one element ("scalar"), four filters of a group, which share the input they read,
 * or four channels of a depthwise convolution, which share nothing.
 */
export type Lanes = "scalar" | "filters" | "depthwise";

const ARGS =
  "@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32";

/** `e` counts the threads up to u.count. */
const mainOf = (body: string): string => wgsl`
  @compute @workgroup_size(64)
  fn main(${ARGS}) {
    let e = (wg.y * grid.x + wg.x) * 64u + local;
    if (e >= u.count) { return; }
    ${body}
  }
`;

const INDEXING = wgsl`
  ${POSITIONS}
  fn inside(at: vec3<i32>, size: vec3<i32>) -> bool { return all(at >= vec3<i32>()) && all(at < size); }
`;

/** Statements for every tap, with `t` its number and `tap` its place in the kernel. */
const forTaps = (body: string): string => wgsl`
  for (var t = 0u; t < volume(${vec3("kernel")}); t++) {
    let tap = unravel(t, ${vec3("kernel")});
    ${body}
  }
`;

const typeOf = (lanes: Lanes): string => (lanes === "scalar" ? "f32" : "vec4<f32>");
const zeroOf = (lanes: Lanes): string => (lanes === "scalar" ? "0f" : "vec4<f32>()");
const widthOf = (lanes: Lanes): 1 | 4 => (lanes === "scalar" ? 1 : 4);
/** Only depthwise loads of x are vectors: otherwise the channels of a group start anywhere. */
const typeOfX = (lanes: Lanes): string => (lanes === "depthwise" ? "vec4<f32>" : "f32");

export function forwardText(lanes: Lanes, uniformText: string, epilogue?: Epilogue): string {
  const width = widthOf(lanes);
  const hole = epilogue?.code(width);
  const x = lanes === "depthwise" ? "x[(pixel * u.channels + filter_at) / 4u]" : "x[pixel * u.channels + first + c]";
  const stored = hole ? "epilogue(acc, position, filter_at)" : "acc";
  return wgsl`
    ${storage([
      ["x", typeOfX(lanes)],
      ["w", typeOf(lanes)],
      ...(hole?.bindings ?? []).map(({ name, type }) => [name, type] as const),
      ["y", typeOf(lanes)],
    ])}
    ${uniformText}
    ${INDEXING}
    ${hole?.wgsl ?? ""}
    ${mainOf(`
    let vectors = u.n / ${width}u;
    let filter_at = e % vectors * ${width}u;
    let position = e / vectors;
    let image = position / volume(${vec3("out")});
    let start = unravel(position % volume(${vec3("out")}), ${vec3("out")}) * ${vec3("stride")} - ${vec3("padding")};
    let first = filter_at / u.group_filters * u.group_channels;
    var acc = ${zeroOf(lanes)};
    ${forTaps(`
    let at = start + tap * ${vec3("dilation")};
    if (!inside(at, ${vec3("in")})) { continue; }
    let pixel = flatten(image, at, ${vec3("in")});
    for (var c = 0u; c < u.group_channels; c++) {
      acc += ${x} * w[((t * u.group_channels + c) * u.n + filter_at) / ${width}u];
    }`)}
    y[e] = ${stored};`)}
  `;
}

/** Input position p was read by output (p + padding - tap dilation) / stride, where that is a whole number inside. */
export function inputGradText(lanes: Lanes, uniformText: string): string {
  const across = lanes === "depthwise" ? 4 : 1;
  const product = {
    scalar: "acc += gy[g_at + f] * w[w_at + f];",
    filters: "acc += dot(gy[(g_at + f) / 4u], w[(w_at + f) / 4u]);",
    depthwise: "acc += gy[(g_at + f) / 4u] * w[(w_at + f) / 4u];",
  }[lanes];
  return wgsl`
    ${storage([
      ["gy", typeOf(lanes)],
      ["w", typeOf(lanes)],
      ["gx", typeOfX(lanes)],
    ])}
    ${uniformText}
    ${INDEXING}
    ${mainOf(`
    let vectors = u.channels / ${across}u;
    let channel = e % vectors * ${across}u;
    let position = e / vectors;
    let image = position / volume(${vec3("in")});
    let start = unravel(position % volume(${vec3("in")}), ${vec3("in")}) + ${vec3("padding")};
    let first = channel / u.group_channels * u.group_filters;
    let c = channel % u.group_channels;
    var acc = ${zeroOf(lanes === "depthwise" ? lanes : "scalar")};
    ${forTaps(`
    let back = start - tap * ${vec3("dilation")};
    let at = back / ${vec3("stride")};
    if (any(back < vec3<i32>()) || any(at * ${vec3("stride")} != back) || !inside(at, ${vec3("out")})) { continue; }
    let g_at = flatten(image, at, ${vec3("out")}) * u.n + first;
    let w_at = (t * u.group_channels + c) * u.n + first;
    for (var f = 0u; f < u.group_filters; f += ${lanes === "filters" ? 4 : 1}u) { ${product} }`)}
    gx[e] = acc;`)}
  `;
}

/** Sums over rows of outputs (all but the last axis) [part * part_rows, (part + 1) * part_rows); a part is a block of gw. */
export function weightGradText(lanes: Lanes, uniformText: string): string {
  const width = widthOf(lanes);
  const x = lanes === "depthwise" ? "x[(pixel * u.channels + filter_at) / 4u]" : "x[pixel * u.channels + channel]";
  return wgsl`
    ${storage([
      ["x", typeOfX(lanes)],
      ["gy", typeOf(lanes)],
      ["gw", typeOf(lanes)],
    ])}
    ${uniformText}
    ${INDEXING}
    ${mainOf(`
    let weight = e % u.weights;
    let part = e / u.weights;
    let vectors = u.n / ${width}u;
    let filter_at = weight % vectors * ${width}u;
    let c = weight / vectors % u.group_channels;
    let tap = unravel(weight / vectors / u.group_channels, ${vec3("kernel")});
    let channel = filter_at / u.group_filters * u.group_channels + c;
    let offset = tap * ${vec3("dilation")} - ${vec3("padding")};
    let images = u32(u.out_d * u.out_h);
    var acc = ${zeroOf(lanes)};
    for (var row = part * u.part_rows; row < min((part + 1u) * u.part_rows, u.rows); row++) {
      let image = row / images;
      let line = vec2<i32>(i32(row % images) / u.out_h, i32(row % images) % u.out_h);
      for (var column = 0; column < u.out_w; column++) {
        let at = vec3<i32>(line, column) * ${vec3("stride")} + offset;
        if (!inside(at, ${vec3("in")})) { continue; }
        let pixel = flatten(image, at, ${vec3("in")});
        acc += ${x} * gy[((row * u32(u.out_w) + u32(column)) * u.n + filter_at) / ${width}u];
      }
    }
    gw[e] = acc;`)}
  `;
}

/** gw[e] = parts[0][e] + parts[1][e] + ... */
export function sumPartsText(uniformText: string): string {
  return wgsl`
    ${storage([
      ["parts", "f32"],
      ["gw", "f32"],
    ])}
    ${uniformText}
    ${mainOf(`
    var acc = 0f;
    for (var part = 0u; part < u.parts; part++) { acc += parts[part * u.count + e]; }
    gw[e] = acc;`)}
  `;
}
