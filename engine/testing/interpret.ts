// Runs the groups that engine/plan/fuse.ts makes in float64 on the host: expressions point by point, kernels by their
// definition on operands read through their layouts. Fusion and indexing are thus tested exactly, thousands of programs
// in seconds and without a device; what is left for the device is the text that emit.ts and writer.ts make of it.

import type { Program } from "../device.ts";
import { leaf, type Node } from "../graph.ts";
import { placeholder } from "../ops/leaf.ts";
import { type Array64, isComposite } from "../ops/op.ts";
import { buildBody, type Expr, simplify } from "../plan/expr.ts";
import { type FuseOptions, type Fusion, fuse, type Group, type Operand } from "../plan/fuse.ts";
import { evaluate64, hostValues } from "../reference.ts";
import { numel, type Shape, stridesOf } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import type { LeafValues } from "./leaves.ts";

/** Values of the program's outputs, computed group by group. */
export function interpret(program: Program, leaves: LeafValues, options: FuseOptions): Map<Node, Array64> {
  const interpreter = new Interpreter(fuse(program, options), leaves);
  return new Map(Object.values(program.outputs).map((n) => [n, interpreter.output(n)]));
}

class Interpreter {
  readonly #fusion: Fusion;
  readonly #leaves: LeafValues;
  readonly #writer = new Map<Node, Group>();
  readonly #memory = new Map<Node, Array64>();

  constructor(fusion: Fusion, leaves: LeafValues) {
    this.#fusion = fusion;
    this.#leaves = leaves;
    for (const g of fusion.groups) for (const r of g.roots) this.#writer.set(r, g);
  }

  output(n: Node): Array64 {
    return this.#read(this.#fusion.resolve(n));
  }

  #read(n: Node): Array64 {
    const known = this.#memory.get(n);
    if (known) return known;
    const group = this.#writer.get(n);
    if (group) this.#run(group);
    else if (n.op.lower.kind !== "leaf")
      throw new Error(`${n.op.name} #${n.id} is read from memory but no group stores it`);
    else this.#memory.set(n, this.#leaves(n));
    return this.#memory.get(n) as Array64;
  }

  #run({ roots, core, operands }: Group): void {
    if (numel(roots[0].shape) === 0) {
      // No point is computed: a space without its axes of size 0 would have some.
      for (const root of roots) this.#memory.set(root, { shape: root.shape, data: new Float64Array(0) });
      return;
    }
    const result = core ? (core.op.lower.kind === "reduce" ? this.#reduce(core) : this.#kernel(core, operands)) : null;
    const body = buildBody(
      roots,
      result ? [numel(core?.shape ?? [])] : roots[0].shape,
      this.#fusion,
      core,
      new Set(roots),
    );
    const { space, values } = simplify(body.space, body.values);
    for (const [i, root] of roots.entries())
      this.#memory.set(root, { shape: root.shape, data: this.#points(space, values[i], result) });
  }

  #reduce(core: Node): Array64 {
    const source = this.#fusion.sources(core)[0];
    const body = buildBody([source], source.shape, this.#fusion, null, new Set());
    const data = this.#points(body.space, body.values[0], null);
    return define(core, [{ shape: source.shape, data }]);
  }

  #kernel(core: Node, operands: readonly Operand[]): Array64 {
    const shapes = this.#fusion.sources(core).map((s) => s.shape);
    return define(
      core,
      operands.map(({ node, layout }, i) => {
        const { data } = this.#read(node);
        return {
          shape: shapes[i],
          data: gathered(shapes[i], (p) => data[p.reduce((at, x, j) => at + x * layout.strides[j], layout.offset)]),
        };
      }),
    );
  }

  /** The expression at every point of the space, in row-major order. */
  #points(space: Shape, value: Expr, core: Array64 | null): Float64Array {
    const strides = stridesOf(space);
    return gathered(space, (point) => {
      const flat = point.reduce((at, x, i) => at + x * strides[i], 0);
      return this.#value(value, point, core ? core.data[flat] : Number.NaN, new Map());
    });
  }

  #value(e: Expr, point: readonly number[], core: number, known: Map<Expr, number>): number {
    const before = known.get(e);
    if (before !== undefined) return before;
    const made = this.#make(e, point, core, known);
    known.set(e, made);
    return made;
  }

  #make(e: Expr, point: readonly number[], core: number, known: Map<Expr, number>): number {
    if (e.kind === "const") return e.value;
    if (e.kind === "core") return core;
    if (e.kind === "load") {
      const at = e.index.at(point);
      const { data } = this.#read(e.node);
      if (!(at >= 0 && at < data.length))
        throw new Error(`${e.node.op.name} #${e.node.id} of ${data.length} elements is read at ${at}`);
      return data[at];
    }
    if (e.kind === "op") {
      const out = new Float64Array(1);
      const args = e.args.map((a) => ({ shape: [], data: Float64Array.of(this.#value(a, point, core, known)) }));
      if (!isComposite(e.node.op)) e.node.op.reference(args, { shape: [], data: out }, e.node.attrs);
      return out[0];
    }
    const piece = e.pieces.find((p) => p.when.every((c) => applies(c.index.at(point), c)));
    return piece ? this.#value(piece.value, point, core, known) : 0;
  }
}

function applies(at: number, { lo, hi, step }: { lo: number; hi: number; step: number }): boolean {
  return at >= lo && at < hi && (at - lo) % step === 0;
}

function gathered(shape: Shape, f: (point: readonly number[]) => number): Float64Array {
  const point = shape.map(() => 0);
  return Float64Array.from({ length: numel(shape) }, () => {
    const value = f(point);
    for (let axis = shape.length - 1; axis >= 0 && ++point[axis] === shape[axis]; axis--) point[axis] = 0;
    return value;
  });
}

/** What an op means, applied to float64 operands. */
function define({ op, attrs, shape }: Node, ins: readonly Array64[]): Array64 {
  const out = { shape, data: new Float64Array(numel(shape)) };
  if (!isComposite(op)) {
    op.reference(ins, out, attrs);
    return out;
  }
  const stand = ins.map((a, i) => leaf(placeholder, { name: `operand ${i}` }, a.shape, "f32"));
  const whole = op.decompose(
    stand.map((n) => new Tensor(n)),
    attrs,
  ).node;
  const value = (n: Node): Array64 => ins[stand.indexOf(n)] ?? hostValues(n.storage);
  return evaluate64([whole], value).get(whole) as Array64;
}
