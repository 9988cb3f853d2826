// A group without a core: one thread per element, or per four, computes the values of all its roots. Here: the space, the
// width of loads and stores, and the loop of a thread that computes several elements (plan/repeat.ts). Called by emit.ts.

import { elementwiseKernel } from "../../../kernels/elementwise.ts";
import type { Node } from "../../graph.ts";
import type { Space } from "../../ops/view.ts";
import { numel } from "../../shape.ts";
import { buildBody, type Expr, identity, indicesOf, simplify } from "../expr.ts";
import { type Repeat, repeatOf, sharedParts } from "../repeat.ts";
import { affine, Bindings, Constants, vectorizes, Writer, type WriterOptions } from "../writer.ts";
import type { EmitContext, Emitted } from "./dispatch.ts";
import { labelOf, opNames, unravel } from "./text.ts";

export function emitElementwise(roots: readonly Node[], { boundary, caps, place }: EmitContext): Emitted {
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
