// Convolutions to at most four filters, as the last of a decoder or of a noise predictor, and the gradient of their
// weight. Tiles of a product would compute 16 columns of which four are wanted. But taps can be columns: P = x W with W
// [channels, taps * 4] is a full product, and y is the sum of P over taps, each moved by its tap. Variants of conv.ts.

import type { ConvSpec } from "./conv.ts";
import { DIVIDE } from "./gemm.ts";
import { MAIN, Passes, rows } from "./passes.ts";
import { vec3, volume, windowFields } from "./three.ts";
import { type Caps, type Epilogue, type Field, type Lowered, storage, type Variant, wgsl } from "./wgsl.ts";

/** Filters are padded to one vec4. */
const WIDTH = 4;
/** With fewer channels the sum over taps costs as much as the product. */
const FEWEST_CHANNELS = 16;
/** Elements of scratch, 32 MiB. */
const MOST_SCRATCH = 2 ** 23;

const pixels = (s: ConvSpec): number => s.batch * volume(s.in);
const columns = (s: ConvSpec): number => WIDTH * volume(s.kernel);
const legal = (s: ConvSpec): boolean => s.filters <= WIDTH;

/** A stride wastes products at the positions that it skips. */
const worthwhile = (s: ConvSpec, caps: Caps): boolean =>
  caps.adapter === "cpu" &&
  caps.subgroupSize > 0 &&
  s.channels >= FEWEST_CHANNELS &&
  volume(s.kernel) > 1 &&
  volume(s.in) <= 2 * volume(s.out) &&
  pixels(s) * columns(s) <= MOST_SCRATCH;

/** `n` is the filters: the epilogue's columns. */
const fields = (s: ConvSpec): Field[] => [
  ["n", "u32", s.filters],
  ["channels", "u32", s.channels],
  ["taps", "u32", volume(s.kernel)],
];
/** A position as (image, d, h, w), and back. */
const POSITIONS = `${DIVIDE}
fn position(i: u32, size: vec3<i32>) -> vec4<i32> {
  let across = divide(i, u32(size.z));
  let down = divide(across, u32(size.y));
  let image = divide(down, u32(size.x));
  let parts = vec4<i32>(i32(image), i32(down), i32(across), i32(i));
  return parts - vec4<i32>(0, parts.xyz * size);
}
fn flat(p: vec4<i32>, size: vec3<i32>) -> u32 { return u32(((p.x * size.x + p.y) * size.y + p.z) * size.z + p.w); }`;
/** The loop over taps, with their number in `tap` and their place in (d, h, w). */
const eachTap = (lines: readonly string[]): string[] => [
  "var tap = 0u;",
  "for (var d = 0; d < u.kernel_d; d++) {",
  "for (var h = 0; h < u.kernel_h; h++) {",
  "for (var w = 0; w < u.kernel_w; w++) {",
  ...lines,
  "tap++;",
  "} } }",
];

/** w [taps, channels, filters] -> [channels, taps, 4], zeros for filters that are not there. A thread is a vec4. */
const weightText = (uniforms: string): string => wgsl`
  ${storage([
    ["w", "f32"],
    ["y", "vec4<f32>"],
  ])}
  ${uniforms}
  ${DIVIDE}
  ${MAIN}
    let channel = divide(at, u.taps);
    let first = ((at - channel * u.taps) * u.channels + channel) * u.n;
    var four = vec4<f32>();
    for (var f = 0u; f < u.n; f++) { four[f] = w[first + f]; }
    y[at] = four;
  }
`;

/** p [batch, ...in, taps, 4] -> y [batch, ...out, filters]. A thread is an output position. */
const sumText = (uniforms: string, epilogue?: ReturnType<Epilogue["code"]>): string => wgsl`
  ${storage([
    ["p", "vec4<f32>"],
    ...(epilogue?.bindings ?? []).map((e): [string, string] => [e.name, e.type]),
    ["y", "f32"],
  ])}
  ${uniforms}
  ${POSITIONS}
  ${epilogue?.wgsl ?? ""}
  ${MAIN}
    let o = position(at, ${vec3("out")});
    let start = o.yzw * ${vec3("stride")} - ${vec3("padding")};
    var sum = vec4<f32>();
    ${eachTap([
      `let i = start + vec3<i32>(d, h, w) * ${vec3("dilation")};`,
      `let hit = all(i >= vec3<i32>()) && all(i < ${vec3("in")});`,
      `if (hit) { sum += p[flat(vec4<i32>(o.x, i), ${vec3("in")}) * u.taps + tap]; }`,
    ])}
    for (var f = 0u; f < u.n; f++) { y[at * u.n + f] = ${epilogue ? "epilogue(sum[f], at, f)" : "sum[f]"}; }
  }
`;

/** gy [batch, ...out, filters] -> g [batch, ...in, taps, 4]: gradients of what each input position gave, by tap. */
const spreadText = (uniforms: string): string => wgsl`
  ${storage([
    ["gy", "f32"],
    ["g", "vec4<f32>"],
  ])}
  ${uniforms}
  ${POSITIONS}
  ${MAIN}
    let i = position(at, ${vec3("in")});
    let start = i.yzw + ${vec3("padding")};
    ${eachTap([
      `let reached = start - vec3<i32>(d, h, w) * ${vec3("dilation")};`,
      `let o = reached / ${vec3("stride")};`,
      `let hit = all(reached >= vec3<i32>()) && all(o * ${vec3("stride")} == reached) && all(o < ${vec3("out")});`,
      "var four = vec4<f32>();",
      "if (hit) {",
      `let first = flat(vec4<i32>(i.x, o), ${vec3("out")}) * u.n;`,
      "for (var f = 0u; f < u.n; f++) { four[f] = gy[first + f]; }",
      "}",
      "g[at * u.taps + tap] = four;",
    ])}
  }
`;

/** p [channels, taps, 4] -> gw [taps, channels, filters]. A thread is a vec4. */
const weightGradText = (uniforms: string): string => wgsl`
  ${storage([
    ["p", "vec4<f32>"],
    ["gw", "f32"],
  ])}
  ${uniforms}
  ${DIVIDE}
  ${MAIN}
    let channel = divide(at, u.taps);
    let first = ((at - channel * u.taps) * u.channels + channel) * u.n;
    let four = p[at];
    for (var f = 0u; f < u.n; f++) { gw[first + f] = four[f]; }
  }
`;

function forward(s: ConvSpec, caps: Caps): Lowered {
  const extras = s.epilogue?.operands ?? 0;
  const y = 2 + extras;
  const p = new Passes(y + 1, caps);
  const [m, k, n] = [pixels(s), s.channels, columns(s)];
  const [w, product] = [k * n, m * n].map((elements) => p.buffer(elements));
  p.add("few weights", (k * n) / WIDTH, 0, [1, w], fields(s), weightText);
  p.product({ m, n, k, batch: [1, 1], a: rows(m, k), b: rows(k, n) }, 0, w, product);
  const operands = [product, ...Array.from({ length: extras }, (_, i) => 2 + i), y];
  const label = ["few sum", s.epilogue?.label].filter(Boolean).join(" ");
  const count = s.batch * volume(s.out);
  p.add(label, count, columns(s), operands, [...fields(s), ...windowFields(s)], (u) => sumText(u, s.epilogue?.code(1)));
  return p;
}

function weightGrad(s: ConvSpec, caps: Caps): Lowered {
  const p = new Passes(3, caps);
  const [m, k, n] = [s.channels, pixels(s), columns(s)];
  const [g, product] = [k * n, m * n].map((elements) => p.buffer(elements));
  p.add("few spread", k, 0, [1, g], [...fields(s), ...windowFields(s)], spreadText);
  p.product({ m, n, k, batch: [1, 1], a: { ...rows(k, m), row: 1, col: m }, b: rows(k, n) }, 0, g, product);
  p.add("few weight grad", (m * n) / WIDTH, 0, [product, 2], fields(s), weightGradText);
  return p;
}

/**
 * Idea: a product as wide as all taps, and a pass that adds (or spreads) taps. Traffic: x once, 4 * taps elements for
 * each position written and read again. Wins on software adapters: measured twice as fast as the portable tile.
 * `anywhere` supports what it can, for tuning and tests, `where` what it should.
 */
function variants(emit: (s: ConvSpec, caps: Caps) => Lowered): {
  readonly where: Variant<ConvSpec>;
  readonly anywhere: Variant<ConvSpec>;
} {
  const anywhere: Variant<ConvSpec> = { name: "few-filters", supports: legal, emit };
  return { where: { ...anywhere, supports: (s, caps) => legal(s) && worthwhile(s, caps) }, anywhere };
}

export const fewForward = variants(forward);
export const fewWeightGrad = variants(weightGrad);
