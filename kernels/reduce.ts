// Reductions around an expression that engine/plan/emit/ writes: `fn value(o, r)` gives element r of output o (four
// outputs, or four elements, at a time), `finish(o, acc)` stores the result. Sums run in an order that depends on the shape
// only, never on timing, so the same input gives the same bits.

import {
  type Caps,
  type Field,
  foldGrid,
  type KernelSource,
  type Lowered,
  type Scalar,
  uniforms,
  wgsl,
} from "./wgsl.ts";

export interface ReduceSpec {
  readonly label: string;
  readonly combine: "sum" | "max";
  /** Of elements and results. Sums of whole numbers wrap. */
  readonly dtype: Scalar;
  /** Results, and elements combined into each. */
  readonly outputs: number;
  readonly length: number;
  /** Arithmetic operations that compute one element. */
  readonly ops: number;
  /**
   * "rows": neighbouring elements of one result lie next to each other; `value` gives a vec4 of elements r..r+3.
   * "columns": neighbouring results do; `value` gives a vec4 for results o..o+3. "scalar": neither divides by four.
   */
  readonly layout: "rows" | "columns" | "scalar";
  /** Bindings of the inputs that `value` reads, how many they are, uniforms it reads, and the function itself. */
  readonly value: {
    readonly bindings: (first: number) => string;
    readonly count: number;
    readonly fields: readonly Field[];
    readonly wgsl: string;
  };
  readonly finish: Ending;
}

/** What is done with each result. */
export interface Ending {
  /** Bindings of epilogue inputs and outputs, and how many they are. */
  readonly bindings: (first: number) => string;
  readonly count: number;
  /** Statements that store `acc` (a number, or a vec4 in columns) for output `o`, and the uniforms they read. */
  readonly code: (width: 1 | 4) => { readonly body: readonly string[]; readonly fields: readonly Field[] };
}

/** Threads that the machine wants busy before splitting a reduction in two passes stops paying. */
const ENOUGH_THREADS = 512;
/** Least elements in a part: with fewer, the second dispatch costs more than the busier machine saves. */
const PART_LENGTH = {
  cpu: { rows: 8192, columns: 1024, scalar: 1024 },
  gpu: { rows: 1024, columns: 256, scalar: 256 },
};
/** Up to this length one thread reduces a row faster than a team that has to meet at the end. */
const SHORT = 64;
/** Operations up to which an element is computed at two places of the text: the loop's own work is then as much as theirs. */
const CHEAP = 1;

interface Teams {
  /** Threads that work on one result. */
  readonly team: number;
  /** Parts that the elements of one result are cut into, combined by a second pass; 1: one pass. */
  readonly split: number;
  /** Results that a team makes, one after the other: its subgroup begins, ends and stores once for all of them. */
  readonly each: number;
  /** Elements (or vectors) that a thread adds up before they go to its sum. */
  readonly pace: 1 | 2;
}

function teamsOf(spec: ReduceSpec, caps: Caps): Teams {
  const lane = caps.adapter === "cpu" && caps.subgroupSize > 0 ? caps.subgroupSize : 64;
  const team = spec.layout === "rows" && spec.length > SHORT ? lane : 1;
  const threads = items(spec) * team;
  const split = Math.max(
    1,
    Math.min(Math.ceil(ENOUGH_THREADS / threads), Math.floor(spec.length / PART_LENGTH[caps.adapter][spec.layout])),
  );
  const shuffled = team > 1 && caps.adapter === "cpu" && caps.subgroupSize === team;
  return {
    team,
    split,
    each: shuffled && split === 1 && spec.outputs >= ENOUGH_THREADS ? team : 1,
    pace: spec.ops <= CHEAP && stepsOf(spec) % (2 * team) === 0 ? 2 : 1,
  };
}

/** Passes that reduce: operands are [...value's bindings, ...finish's bindings], scratch holds partial results. */
export function reduceKernel(spec: ReduceSpec, caps: Caps): Lowered {
  const teams = teamsOf(spec, caps);
  const valueSlots = Array.from({ length: spec.value.count }, (_, i) => i);
  const finishSlots = Array.from({ length: spec.finish.count }, (_, i) => spec.value.count + i);
  if (teams.split === 1) {
    return {
      passes: [{ source: firstPass(spec, teams, caps, spec.finish), operands: [...valueSlots, ...finishSlots] }],
      scratch: [],
    };
  }
  const scratch = spec.value.count + spec.finish.count;
  const element = typeOf(spec, vector(spec) === 4);
  const partial: Ending = {
    bindings: (first) => `@group(0) @binding(${first}) var<storage, read_write> partial: array<${element}>;`,
    count: 1,
    code: () => ({ body: ["partial[part * u.items + item] = acc;"], fields: [] }),
  };
  return {
    passes: [
      { source: firstPass(spec, teams, caps, partial), operands: [...valueSlots, scratch] },
      { source: secondPass(spec, teams.split, caps), operands: [...finishSlots, scratch] },
    ],
    scratch: [teams.split * spec.outputs],
  };
}

function vector(spec: ReduceSpec): 1 | 4 {
  return spec.layout === "columns" ? 4 : 1;
}

/** Results counted in the unit a thread (or team) produces. */
function items(spec: ReduceSpec): number {
  return spec.outputs / vector(spec);
}

/** Elements of one result in the unit that `value` gives. */
function stepsOf({ layout, length }: ReduceSpec): number {
  return Math.ceil(length / (layout === "rows" ? 4 : 1));
}

function typeOf({ dtype }: ReduceSpec, wide: boolean): string {
  return wide ? `vec4<${dtype}>` : dtype;
}

/** What changes nothing: in the sum of an empty part, and in its maximum. */
const IDENTITY = {
  sum: { f32: "0.0", i32: "0i", u32: "0u" },
  max: { f32: "-3.4028234e38", i32: "i32(-2147483648)", u32: "0u" },
};

function combine(spec: ReduceSpec, a: string, b: string): string {
  return spec.combine === "sum" ? `(${a} + ${b})` : `max(${a}, ${b})`;
}

/** Each team walks over its part of the elements, then its threads combine what they have. */
function firstPass(spec: ReduceSpec, teams: Teams, caps: Caps, end: Ending): KernelSource {
  const { team, split, each, pace } = teams;
  const workgroup = team > 1 ? team : 64;
  const workers = Math.ceil(items(spec) / each) * split;
  const subgroup = team > 1 && caps.adapter === "cpu" && caps.subgroupSize === team;
  const joined = team === 1 ? ["let acc = own;"] : subgroup ? shuffles(spec, team) : tree(spec, team);
  const { body, fields } = end.code(vector(spec));
  const perPart = Math.ceil(stepsOf(spec) / split / (pace * team)) * (pace * team);
  const u = uniforms(spec.value.count + end.count, [
    ["items", "u32", items(spec)],
    ["workers", "u32", workers],
    ["steps", "u32", stepsOf(spec)],
    ["per_part", "u32", perPart],
    ...spec.value.fields,
    ...fields,
  ]);
  const one = [...walk(spec, teams), ...joined];
  const zero = `${spec.dtype}(${IDENTITY[spec.combine][spec.dtype]})`;
  const parts = split > 1 ? ["let item = worker % u.items;", "let part = worker / u.items;"] : ["let item = worker;"];
  const text = wgsl`
    ${subgroup ? "enable subgroups;\ndiagnostic(off, subgroup_uniformity);" : ""}
    ${spec.value.bindings(0)}
    ${end.bindings(spec.value.count)}
    ${u.wgsl}
    ${team > 1 && !subgroup ? `var<workgroup> shared_acc: array<${spec.dtype}, ${team}>;` : ""}
    ${spec.value.wgsl}
    @compute @workgroup_size(${workgroup})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
      let wg_index = wg.y * grid.x + wg.x;
      let worker = ${team > 1 ? "wg_index" : `wg_index * ${workgroup}u + lane`};
      let member = ${team > 1 ? "lane" : "0u"};
      if (worker >= u.workers) { return; }
      ${each > 1 ? inTurn(teams, one, body, zero) : [...parts, ...one, team > 1 ? "if (member == 0u) {" : "{", ...body, "}"]}
    }
  `;
  return {
    label: `${spec.label} ${spec.layout}${split > 1 ? " split" : ""}`,
    wgsl: text,
    workgroups: foldGrid(Math.ceil((workers * team) / workgroup), caps),
    uniforms: u.words,
    flops: (spec.ops + 1) * spec.outputs * spec.length,
  };
}

/**
 * `own`: what a thread has of its part of result `item`. The loop counts by ones, so that WGSL's compiler sees that it ends; into
 * others it puts a counter of its own.
 */
function walk(spec: ReduceSpec, { team, split, pace }: Teams): string[] {
  const rows = spec.layout === "rows";
  const stride = pace * team;
  const round = pace === 1 && team > 1 ? ` + ${team - 1}u - member` : "";
  const element = (s: string): string => `value(o, ${rows ? `(${s}) * 4u` : s})`;
  const elements = pace === 1 ? element("s") : combine(spec, element("s"), element(`s + ${team}u`));
  return [
    `let o = item * ${vector(spec)}u;`,
    `let begin = ${split > 1 ? "min(part * u.per_part, u.steps)" : "0u"};`,
    `let turns = (${split > 1 ? "min(begin + u.per_part, u.steps) - begin" : "u.steps"}${round}) / ${stride}u;`,
    `var sum = ${typeOf(spec, spec.layout !== "scalar")}(${IDENTITY[spec.combine][spec.dtype]});`,
    "for (var turn = 0u; turn < turns; turn++) {",
    `  let s = begin + member + turn * ${stride}u;`,
    `  sum = ${combine(spec, "sum", elements)};`,
    "}",
    `let own = ${rows ? combine(spec, combine(spec, "sum.x", "sum.y"), combine(spec, "sum.z", "sum.w")) : "sum"};`,
  ];
}

/** A subgroup that makes as many results as it has threads: each thread keeps one of them, and all store at once. */
function inTurn({ each }: Teams, one: readonly string[], body: readonly string[], zero: string): string[] {
  return [
    `let first = worker * ${each}u;`,
    `let results = min(u.items - first, ${each}u);`,
    `var kept = ${zero};`,
    "for (var j = 0u; j < results; j++) {",
    "let item = first + j;",
    ...one,
    "kept = select(kept, acc, member == j);",
    "}",
    "let o = first + member;",
    "let acc = kept;",
    "if (member < results) {",
    ...body,
    "}",
  ];
}

/** Butterfly over the subgroup: every lane ends with the total. Shuffles cost a tenth of shared memory on CPU adapters. */
function shuffles(spec: ReduceSpec, team: number): string[] {
  const lines = ["var acc = own;"];
  for (let d = team / 2; d >= 1; d /= 2) lines.push(`acc = ${combine(spec, "acc", `subgroupShuffleXor(acc, ${d}u)`)};`);
  return lines;
}

/** Halving tree in workgroup memory. */
function tree(spec: ReduceSpec, team: number): string[] {
  const lines = ["shared_acc[lane] = own;", "workgroupBarrier();"];
  for (let d = team / 2; d >= 1; d /= 2) {
    lines.push(
      `if (lane < ${d}u) { shared_acc[lane] = ${combine(spec, "shared_acc[lane]", `shared_acc[lane + ${d}u]`)}; }`,
      "workgroupBarrier();",
    );
  }
  return [...lines, "let acc = shared_acc[0];"];
}

/** Combines the parts of each result, in order. */
function secondPass(spec: ReduceSpec, split: number, caps: Caps): KernelSource {
  const type = typeOf(spec, vector(spec) === 4);
  const { body, fields } = spec.finish.code(vector(spec));
  const u = uniforms(spec.finish.count + 1, [["items", "u32", items(spec)], ["parts", "u32", split], ...fields]);
  const text = wgsl`
    ${spec.finish.bindings(0)}
    @group(0) @binding(${spec.finish.count}) var<storage, read_write> partial: array<${type}>;
    ${u.wgsl}
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
      let item = (wg.y * grid.x + wg.x) * 64u + lane;
      if (item >= u.items) { return; }
      let o = item * ${vector(spec)}u;
      var acc = partial[item];
      for (var part = 1u; part < u.parts; part++) { acc = ${combine(spec, "acc", "partial[part * u.items + item]")}; }
      ${body}
    }
  `;
  return {
    label: `${spec.label} parts`,
    wgsl: text,
    workgroups: foldGrid(Math.ceil(items(spec) / 64), caps),
    uniforms: u.words,
    flops: spec.outputs * split,
  };
}
