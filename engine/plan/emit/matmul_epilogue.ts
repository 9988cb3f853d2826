// The elementwise ops behind a product, as a WGSL function that its kernel calls where it stores: for one element of the
// result, or for four along its columns. Called by kernel.ts.

import type { Epilogue } from "../../../kernels/wgsl.ts";
import type { Node } from "../../graph.ts";
import { numel } from "../../shape.ts";
import { buildBody, type Expr, identity, simplify } from "../expr.ts";
import type { Group } from "../fuse.ts";
import { Bindings, Constants, vectorizes, Writer, type WriterOptions } from "../writer.ts";
import type { EmitContext } from "./dispatch.ts";
import { labelOf, unravel } from "./text.ts";

/** Elementwise ops behind a product of [rows, columns], as the kernel's epilogue. */
export function matmulEpilogue(
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
