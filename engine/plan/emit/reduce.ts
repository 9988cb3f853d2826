// A group around a reduction: what is reduced becomes a function `value(o, r)`, what is fused behind it the end of each
// result, and kernels/reduce.ts makes the loop. Called by emit.ts.

import { type Ending, reduceKernel } from "../../../kernels/reduce.ts";
import { storageType } from "../../dtype.ts";
import type { Node } from "../../graph.ts";
import type { ReduceAttrs } from "../../ops/reduce.ts";
import { Index } from "../../ops/view.ts";
import { numel } from "../../shape.ts";
import { type Body, buildBody, type Expr, identity, mapIndices, simplify } from "../expr.ts";
import type { Group } from "../fuse.ts";
import { Bindings, Constants, vectorizes, Writer, type WriterOptions } from "../writer.ts";
import { type EmitContext, type Emitted, resolveSlots } from "./dispatch.ts";
import { labelOf, opNames, unravel } from "./text.ts";

export function emitReduce(group: Group, core: Node, context: EmitContext): Emitted {
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
  return resolveSlots(lowered, [...bindings.list, ...finish.list]);
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
