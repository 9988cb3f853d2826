// Leaves of the graph: constants (a fill value, inlined into kernels), data (host values or results kept on the
// device), state (parameters, updated in place) and placeholders (inputs of a compiled step). None has sources.

import { type Attrs, defineOp, type OpDef, type Sample } from "./op.ts";

export interface ConstantAttrs extends Attrs {
  readonly value: number;
}

const nothing = (): Sample<Attrs> => ({ inputs: [], attrs: {} });

function leafOp(name: string): OpDef<Attrs> {
  return defineOp({
    name,
    shape: () => [],
    reference: () => {
      throw new Error(`${name} has values, not a definition`);
    },
    vjp: () => [],
    lower: { kind: "leaf" },
    draw: nothing,
    rtol: 0,
  });
}

export const constant = defineOp<ConstantAttrs>({
  name: "constant",
  shape: () => [],
  reference: (_, out, { value }) => {
    out.data.fill(value);
  },
  vjp: () => [],
  lower: { kind: "leaf", value: (attrs) => attrs.value },
  draw: () => ({ inputs: [], attrs: { value: 2 } }),
  rtol: 0,
});
export const data = leafOp("data");
export const state = leafOp("state");
export const placeholder = leafOp("placeholder");
