// Group -> kernel: chooses the space and the vector width, has the Writer turn expressions into WGSL, and gives them to a
// kernel of kernels/. The only place, beside ops/, that imports kernels.

import { elementwiseKernel } from "../../kernels/elementwise.ts";
import { withHalves } from "../../kernels/half.ts";
import { type Ending, reduceKernel } from "../../kernels/reduce.ts";
import { type Caps, choose, type Epilogue, type KernelSource } from "../../kernels/wgsl.ts";
import { bufferType, storageType } from "../dtype.ts";
import type { Node } from "../graph.ts";
import type { KernelLowering } from "../ops/op.ts";
import type { ReduceAttrs } from "../ops/reduce.ts";
import { Index, type Space } from "../ops/view.ts";
import { numel, stridesOf } from "../shape.ts";
import { type Body, type Boundary, buildBody, type Expr, identity, indicesOf, mapIndices, simplify } from "./expr.ts";
import type { Group } from "./fuse.ts";
import { type Repeat, repeatOf, sharedParts } from "./repeat.ts";
import { affine, Bindings, Constants, type PlaceOf, vectorizes, Writer, type WriterOptions } from "./writer.ts";

/** A storage binding of a dispatch: the place of a node, or scratch of this group. */
export type Slot = { readonly place: string; readonly node: Node } | { readonly scratch: number };

export interface EmittedPass {
  readonly source: KernelSource;
  readonly slots: readonly Slot[];
}

export interface Emitted {
  readonly passes: readonly EmittedPass[];
  /** Elements of each scratch buffer. */
  readonly scratch: readonly number[];
}

export interface EmitContext {
  readonly boundary: Boundary;
  readonly caps: Caps;
  readonly place: PlaceOf;
}

export function emit(group: Group, context: EmitContext): Emitted {
  const { passes, scratch } = emitGroup(group, context);
  return { passes: passes.map(enabled), scratch };
}

function emitGroup(group: Group, context: EmitContext): Emitted {
  if (!group.core) return emitElementwise(group.roots, context);
  return group.core.op.lower.kind === "reduce"
    ? emitReduce(group, group.core, context)
    : emitKernel(group, group.core, context);
}

/** Texts that bind 16-bit floats say so in their first line. */
function enabled(pass: EmittedPass): EmittedPass {
  const { wgsl } = pass.source;
  if (!/array<(vec4<)?f16>/.test(wgsl) || wgsl.includes("enable f16;")) return pass;
  return { ...pass, source: { ...pass.source, wgsl: `enable f16;\n${wgsl}` } };
}

/** Op names of the expressions, in order of evaluation: what a profiler shows. */
function opNames(values: readonly Expr[]): string[] {
  const names: string[] = [];
  const seen = new Set<Expr>();
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (e.kind === "op") {
      e.args.forEach(visit);
      names.push(e.node.op.name);
    } else if (e.kind === "pick") for (const p of e.pieces) visit(p.value);
  };
  values.forEach(visit);
  return names;
}

/** The names with counts, as in `mul*2 add`. */
function labelOf(values: readonly Expr[]): string {
  const counts = new Map<string, number>();
  for (const n of opNames(values)) counts.set(n, (counts.get(n) ?? 0) + 1);
  return [...counts].map(([n, c]) => (c > 1 ? `${n}*${c}` : n)).join(" ") || "copy";
}

// ---- elementwise -----------------------------------------------------------------------------------------------------

function emitElementwise(roots: readonly Node[], { boundary, caps, place }: EmitContext): Emitted {
  const body = buildBody(roots, roots[0].shape, boundary, null, new Set(roots));
  const { space, values } = simplify(body.space, body.values);
  const total = numel(space);
  const bindings = new Bindings("b", place, caps.f16);
  const constants = new Constants("k");
  // Buffers are padded to 16 bytes, so a kernel that touches only matching elements may run over the end of the last vec4.
  const flat = space.length <= 1 && vectorizes(values, space.length - 1, 4) && !branches(values);
  const along = flat && space.length === 0 ? -1 : space.length - 1;
  const vector = (flat && total > 1) || vectorizes(values, along, space[along] ?? 1);
  const width = vector ? 4 : 1;
  const variables = space.map((_, i) => `x${i}`);
  const index = identity(space);
  const scattered = !flat || indicesOf(values).some((x) => x.key() !== index.key());
  const repeat = flat ? null : repeatOf(space, values, vector ? along : -1, width, caps);
  // Where the element is, counted in what a thread computes: the thread's number, or a sum where it computes several.
  const here = repeat ? "p" : "i";
  const options: WriterOptions = {
    bindings,
    constants,
    variables,
    vectorAlong: vector ? along : -1,
    known: { index, wgsl: vector ? `(${here} * 4u)` : here, overFour: here },
  };
  Writer.prepare(values, options);
  for (const root of roots) bindings.of(root).vector ||= vector;
  const writer = new Writer(options);
  if (repeat) for (const part of sharedParts(values, repeat.axis)) writer.write(part);
  const shared = writer.lines.splice(0);
  const stores = values.map((v, j) => {
    const name = writer.write(v);
    const out = bindings.of(roots[j]);
    const at = out.vector && !vector ? `${here} / 4u][${here} % 4u` : here;
    return `${out.name}[${at}] = ${writer.stored(name, roots[j].dtype)};`;
  });
  const flatIndex = vector ? "i * 4u" : "i";
  const lines = repeat
    ? repeated(space, repeat, flatIndex, width, constants, shared, [...writer.lines, ...stores])
    : [...(scattered ? unravel(space, flatIndex, "x", constants) : []), ...writer.lines, ...stores];
  const source = elementwiseKernel(
    {
      label: labelOf(values),
      bindings: bindings.declare(0),
      body: lines,
      storages: bindings.list.length,
      fields: constants.fields,
      flops: total * opNames(values).length,
      count: Math.ceil(total / width / (repeat?.times ?? 1)),
      // A buffer of halves is padded to more than the last vec4 of its values: its length says too much.
      boundedBy: flat && !bindings.list.some((b) => b.dtype === "f16") ? bindings.of(roots[0]).name : undefined,
    },
    caps,
  );
  return { passes: [{ source, slots: bindings.list.map((b) => ({ place: b.place, node: b.node })) }], scratch: [] };
}

/** Do the expressions contain a choice between pieces? */
function branches(values: readonly Expr[]): boolean {
  const seen = new Set<Expr>();
  const visit = (e: Expr): boolean => {
    if (seen.has(e)) return false;
    seen.add(e);
    return e.kind === "pick" || (e.kind === "op" && e.args.some(visit));
  };
  return values.some(visit);
}

/** A loop over the elements of one thread, behind what they share. Its bound is a uniform: a constant would be unrolled. */
function repeated(
  space: Space,
  { axis, times }: Repeat,
  flat: string,
  width: number,
  constants: Constants,
  shared: readonly string[],
  body: readonly string[],
): string[] {
  const step = space[axis] / times;
  const rest = space.map((n, i) => (i === axis ? step : n));
  const position = affine(
    identity(space),
    space.map((_, i) => `x${i}`),
    constants,
  );
  return [
    ...unravel(rest, flat, "x", constants).map((l) => l.replace(`let x${axis} `, `let first `)),
    ...shared,
    `for (var j = 0u; j < ${constants.of(times)}; j++) {`,
    `let x${axis} = first + j * ${constants.of(step)};`,
    `let p = (${position})${width === 4 ? " / 4u" : ""};`,
    ...body,
    "}",
  ];
}

/** Statements that split a flat position into the variables of a space. */
function unravel(space: Space, flat: string, prefix: string, constants: Constants, first = 0): string[] {
  const strides = stridesOf(space);
  return space.map((n, i) => {
    const over = strides[i] === 1 ? flat : constants.quotient(flat, strides[i]);
    return `let ${prefix}${first + i} = ${i === 0 ? over : constants.remainder(over, n)};`;
  });
}

// ---- reductions ------------------------------------------------------------------------------------------------------

function emitReduce(group: Group, core: Node, context: EmitContext): Emitted {
  const { boundary, caps, place } = context;
  const lower = core.op.lower;
  if (lower.kind !== "reduce") throw new Error(`${core.op.name} is not a reduction`);
  const source = boundary.sources(core)[0];
  const { axes } = core.attrs as ReduceAttrs;
  const loop = reductionSpace(buildBody([source], source.shape, boundary, null, new Set()), axes);
  const { kept, reduced, layout, value } = loop;
  const bindings = new Bindings("b", place, caps.f16);
  const along = layout === "rows" ? kept.length + reduced.length - 1 : layout === "columns" ? kept.length - 1 : -1;
  const variables = [...kept.map((_, i) => `x${i}`), ...reduced.map((_, i) => `x${kept.length + i}`)];
  const constants = new Constants("k");
  const options: WriterOptions = { bindings, constants, variables, vectorAlong: along };
  Writer.prepare([value], options);
  const writer = new Writer(options);
  const result = writer.write(value);
  const dtype = storageType(source.dtype);
  const type = along >= 0 ? `vec4<${dtype}>` : dtype;
  const lines = [
    ...unravel(kept, "o", "x", constants),
    ...unravel(reduced, "r", "x", constants, kept.length),
    ...writer.lines,
  ];
  const finish = epilogueOf(group, core, context, "o", numel(kept));
  const lowered = reduceKernel(
    {
      label: `${core.op.name}(${labelOf([value])})${finish.label ? ` ${finish.label}` : ""}`,
      combine: lower.combine,
      dtype,
      outputs: numel(kept),
      length: numel(reduced),
      ops: opNames([value]).length,
      layout,
      value: {
        bindings: (first) => bindings.declare(first),
        count: bindings.list.length,
        fields: constants.fields,
        wgsl: `fn value(o: u32, r: u32) -> ${type} {\n${lines.map((l) => `  ${l}`).join("\n")}\n  return ${result};\n}`,
      },
      finish,
    },
    caps,
  );
  return separate(resolveSlots(lowered, [...bindings.list, ...finish.list]), context);
}

/** Kept variables first, reduced ones after them, each run as short as it gets, and which of the two is innermost. */
function reductionSpace(
  body: Body,
  axes: readonly number[],
): { kept: number[]; reduced: number[]; layout: "rows" | "columns" | "scalar"; value: Expr } {
  const isReduced = (i: number): boolean => axes.includes(body.origin[i]);
  const all = body.space.map((_, i) => i);
  const order = [...all.filter((i) => !isReduced(i)), ...all.filter(isReduced)];
  const keptCount = all.filter((i) => !isReduced(i)).length;
  const sizes = order.map((i) => body.space[i]);
  const innermost = all.filter((i) => body.space[i] > 1).at(-1);
  const permuted = permuteVariables(body.values, order, sizes);
  const { space, values, runs } = simplify(
    sizes,
    permuted,
    sizes.map((_, i) => i === keptCount - 1),
  );
  const split = runs.filter((run) => run[0] < keptCount).length;
  const [kept, reduced] = [space.slice(0, split), space.slice(split)];
  const rows = innermost !== undefined && isReduced(innermost);
  const along = rows ? space.length - 1 : split - 1;
  const layout = along >= 0 && vectorizes(values, along, space[along]) ? (rows ? "rows" : "columns") : "scalar";
  return { kept, reduced, layout, value: values[0] };
}

function permuteVariables(values: readonly Expr[], order: readonly number[], sizes: readonly number[]): Expr[] {
  return mapIndices(
    values,
    (x) =>
      new Index(
        sizes,
        x.off,
        order.map((i) => x.coef[i]),
        x.quotients,
      ),
  );
}

interface Finish extends Ending {
  readonly label: string;
  readonly list: readonly { readonly place: string; readonly node: Node }[];
}

/** What happens to each result of a reduction: the elementwise ops fused behind it, and the store. */
function epilogueOf(
  group: Group,
  core: Node,
  { boundary, place, caps }: EmitContext,
  position: string,
  outputs: number,
): Finish {
  const root = group.roots[0];
  const body = buildBody([root], [outputs], boundary, core, new Set([root]));
  const { space, values } = simplify(body.space, body.values);
  const bindings = new Bindings("e", place, caps.f16);
  // A vec4 of column results is stored element by element: the output then has one declaration whatever the width.
  const options = (core: string, at: string, constants: Constants): WriterOptions => ({
    bindings,
    constants,
    variables: space.map((_, i) => `y${i}`),
    vectorAlong: -1,
    core,
    known: { index: identity(space), wgsl: at, overFour: at },
  });
  Writer.prepare(values, options("acc", position, new Constants(null)));
  const out = bindings.of(root);
  const store = (acc: string, at: string, constants: Constants): string[] => {
    const writer = new Writer(options(acc, at, constants));
    const name = writer.write(values[0]);
    return [
      "{",
      ...unravel(space, at, "y", constants),
      ...writer.lines,
      `${out.name}[${at}] = ${writer.stored(name, root.dtype)};`,
      "}",
    ];
  };
  return {
    label: root === core ? "" : labelOf(values),
    list: bindings.list,
    bindings: (first) => bindings.declare(first),
    count: bindings.list.length,
    code: (width) => {
      const constants = new Constants("f");
      const lanes = width === 1 ? [["acc", position]] : [0, 1, 2, 3].map((j) => [`acc[${j}]`, `(${position} + ${j}u)`]);
      return { body: lanes.flatMap(([acc, at]) => store(acc, at, constants)), fields: constants.fields };
    },
  };
}

// ---- hand-written kernels --------------------------------------------------------------------------------------------

/** The family and the spec of the kernel that a group is made around; null where it is made around none. */
export function kernelOf(
  { core, operands }: Pick<Group, "core" | "operands">,
  { sources }: Pick<Boundary, "sources">,
): Kernel | null {
  if (core?.op.lower.kind !== "kernel") return null;
  const lower: KernelLowering<unknown> = core.op.lower;
  const shapes = sources(core).map((s) => s.shape);
  const layouts = operands.map((o) => o.layout);
  return { family: lower.family, spec: lower.spec(shapes, core.attrs, layouts) };
}

export interface Kernel {
  readonly family: KernelLowering<unknown>["family"];
  readonly spec: object;
}

function emitKernel(group: Group, core: Node, context: EmitContext): Emitted {
  const { family, spec } = kernelOf(group, context.boundary) as Kernel;
  const root = group.roots[0];
  const hole = root === core ? null : matmulEpilogue(group, core, context);
  const variant = choose(family, spec, context.caps);
  const lowered = variant.emit(hole ? { ...spec, epilogue: hole.epilogue } : spec, context.caps);
  const slot = (node: Node): { place: string; node: Node } => ({ place: context.place(node), node });
  const list = [...group.operands.map((o) => slot(o.node)), ...(hole?.list ?? []), slot(root)];
  const resolved = resolveSlots(lowered, list);
  const passes = context.caps.f16 ? resolved.passes.map(inHalves) : resolved.passes;
  return separate({ ...resolved, passes }, context);
}

/** Elementwise ops behind a product of [rows, columns], as the kernel's epilogue. */
function matmulEpilogue(
  group: Group,
  core: Node,
  { boundary, place, caps }: EmitContext,
): { epilogue: Epilogue; list: Bindings["list"] } {
  const root = group.roots[0];
  const columns = core.shape[core.shape.length - 1];
  const rows = numel(core.shape) / columns;
  const body = buildBody([root], [rows, columns], boundary, core, new Set([root]));
  const { space, values, runs } = simplify(
    body.space,
    body.values,
    body.origin.map((o, i) => o === 0 && body.origin[i + 1] === 1),
  );
  const split = runs.filter((run) => body.origin[run[0]] === 0).length;
  const [rowSpace, colSpace] = [space.slice(0, split), space.slice(split)];
  const along =
    colSpace.length > 0 && vectorizes(values, space.length - 1, space[space.length - 1]) ? space.length - 1 : -1;
  const bindings = new Bindings("e", place, caps.f16);
  // The uniforms are the kernel's own, so sizes are literals here.
  const constants = new Constants(null);
  const optionsFor = (vectorAlong: number, list: Bindings): WriterOptions => ({
    bindings: list,
    constants,
    variables: space.map((_, i) => `x${i}`),
    vectorAlong,
    core: "acc",
    known: { index: identity(space), wgsl: "(row * u.n + col)", overFour: "((row * u.n + col) / 4u)" },
  });
  Writer.prepare(values, optionsFor(along, bindings));
  const functionOf = (vectorAlong: number, list: Bindings, name: string): string => {
    const writer = new Writer(optionsFor(vectorAlong, list));
    const result = writer.write(values[0]);
    const type = vectorAlong >= 0 ? "vec4<f32>" : "f32";
    const lines = [
      ...unravel(rowSpace, "row", "x", constants),
      ...unravel(colSpace, "col", "x", constants, split),
      ...writer.lines,
    ];
    return `fn ${name}(acc: ${type}, row: u32, col: u32) -> ${type} {\n${lines.map((l) => `  ${l}`).join("\n")}\n  return ${result};\n}`;
  };
  const declared = (list: Bindings): { name: string; type: string }[] =>
    list.list.map((b) => ({ name: b.name, type: list.element(b) }));
  const lanes = [0, 1, 2, 3].map((j) => `epilogue_one(acc[${j}], row, col + ${j}u)`).join(", ");
  const epilogue: Epilogue = {
    operands: bindings.list.length,
    label: labelOf(values),
    bias: along >= 0 && isBias(values[0], along),
    code: (width) => {
      if (width === 4 && along >= 0)
        return { bindings: declared(bindings), wgsl: functionOf(along, bindings, "epilogue") };
      const scalar = new Bindings("e", place, caps.f16);
      for (const b of bindings.list) scalar.of(b.node);
      if (width === 1) return { bindings: declared(scalar), wgsl: functionOf(-1, scalar, "epilogue") };
      const four = `fn epilogue(acc: vec4<f32>, row: u32, col: u32) -> vec4<f32> { return vec4<f32>(${lanes}); }`;
      return { bindings: declared(scalar), wgsl: `${functionOf(-1, scalar, "epilogue_one")}\n${four}` };
    },
  };
  return { epilogue, list: bindings.list };
}

/** The kernel's result plus a vector that runs along variable `along`, the columns. */
function isBias(e: Expr, along: number): boolean {
  if (e.kind !== "op" || e.node.op.lower.kind !== "elementwise" || !e.node.op.lower.adds) return false;
  const load = e.args.find((a) => a.kind === "load");
  if (!load || !e.args.some((a) => a.kind === "core")) return false;
  const { off, coef, quotients } = load.index;
  return off === 0 && quotients.length === 0 && coef.every((c, i) => c === Number(i === along));
}

/** Kernels are written for f32: what they read or write in 16 bits is converted at the access. */
function inHalves(pass: EmittedPass): EmittedPass {
  const text = pass.slots.reduce(
    (wgsl, slot, i) => ("node" in slot && slot.node.dtype === "f16" ? withHalves(wgsl, i) : wgsl),
    pass.source.wgsl,
  );
  return { ...pass, source: { ...pass.source, wgsl: text } };
}

interface LoweredLike {
  readonly passes: readonly { readonly source: KernelSource; readonly operands: readonly number[] }[];
  readonly scratch: readonly number[];
}

function resolveSlots(lowered: LoweredLike, list: readonly { readonly place: string; readonly node: Node }[]): Emitted {
  const slot = (i: number): Slot =>
    i < list.length ? { place: list[i].place, node: list[i].node } : { scratch: i - list.length };
  return {
    passes: lowered.passes.map((p) => ({ source: p.source, slots: p.operands.map(slot) })),
    scratch: lowered.scratch,
  };
}

/** A kernel that is given the same buffer twice (x @ x^T) gets a copy for the second: bindings must not overlap. */
function separate(emitted: Emitted, { caps }: EmitContext): Emitted {
  const copies: EmittedPass[] = [];
  const scratch = [...emitted.scratch];
  const passes = emitted.passes.map((pass) => {
    const seen = new Set<string>();
    const slots = pass.slots.map((slot): Slot => {
      if ("scratch" in slot || !seen.has(slot.place)) {
        if ("place" in slot) seen.add(slot.place);
        return slot;
      }
      const type = `vec4<${bufferType(slot.node.dtype, caps.f16)}>`;
      const bindings = `@group(0) @binding(0) var<storage, read_write> a: array<${type}>;\n@group(0) @binding(1) var<storage, read_write> b: array<${type}>;`;
      const source = elementwiseKernel(
        {
          label: "copy",
          bindings,
          storages: 2,
          fields: [],
          body: ["b[i] = a[i];"],
          count: Math.ceil(numel(slot.node.shape) / 4),
          boundedBy: slot.node.dtype === "f16" ? undefined : "b", // see emitElementwise
        },
        caps,
      );
      const copy: Slot = { scratch: scratch.push(numel(slot.node.shape)) - 1 };
      copies.push({ source, slots: [slot, copy] });
      return copy;
    });
    return { ...pass, slots };
  });
  return { passes: [...copies, ...passes], scratch };
}
