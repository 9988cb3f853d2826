// What the project knows about one op, in one record: shape rule, float64 definition, gradient, WGSL, random calls for
// the generic tests, and its accuracy. Adding an op means adding a record; no other file has a ladder over op names.

import type { Draw, Family } from "../../kernels/wgsl.ts";
import type { DType } from "../dtype.ts";
import { DTypeError } from "../error.ts";
import type { Node } from "../graph.ts";
import { type Shape, stridesOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import type { Index, Piece, Space } from "./view.ts";

export type Attrs = Readonly<Record<string, unknown>>;

/** A dense float64 array: what references read and write. Integers and bools are stored as numbers. */
export interface Array64 {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** A random legal call. Integer inputs give the bound `below` which their values stay. */
export interface Sample<A> {
  readonly inputs: readonly { readonly shape: Shape; readonly dtype?: DType; readonly below?: number }[];
  readonly attrs: A;
}

export type WgslType = "f32" | "i32" | "u32" | "bool" | "vec4<f32>" | "vec4<i32>" | "vec4<u32>" | "vec4<bool>";

/** Specs and attributes differ per op; the record that declares them is the only place that reads them. */
// biome-ignore lint/suspicious/noExplicitAny: existential type, see above
export type AnySpec = any;

/** Declares a variable that holds the value of a WGSL expression, and gives its name: for what an expression uses twice. */
export type Bind = (expression: string) => string;

export type Lowering<A> =
  /** An expression of the inputs' values; `t` is the result type (scalar or vec4), for literals. */
  | {
      readonly kind: "elementwise";
      wgsl(x: readonly string[], t: WgslType, attrs: A, bind: Bind): string;
      /** The sum of its two inputs: products take one that is a vector over their columns as a bias. */
      readonly adds?: boolean;
    }
  | { readonly kind: "reduce"; readonly combine: "sum" | "max" }
  /** An index map: never a dispatch of its own unless its result must be stored. */
  | {
      readonly kind: "view";
      read(attrs: A, node: Node, at: readonly Index[], space: Space): readonly Piece[];
      /** The result holds the same elements in the same row-major order. */
      readonly linear?: boolean;
    }
  | KernelLowering<A>
  /** No computation. `value`: the result is this number everywhere, which kernels write as a literal. */
  | { readonly kind: "leaf"; value?(attrs: A): number };

/** A composite without a kernel: always replaced by its decomposition. */
export interface PartsLowering {
  readonly kind: "parts";
}

/** How an operand lies in its buffer: element [i, j, ...] at offset + i * strides[0] + j * strides[1] + ... */
export interface Layout {
  readonly offset: number;
  readonly strides: readonly number[];
}

/** A hand-written kernel family. */
export interface KernelLowering<A> {
  readonly kind: "kernel";
  readonly family: Family<AnySpec>;
  spec(ins: readonly Shape[], attrs: A, layouts: readonly Layout[]): AnySpec;
  /** Operands may be strided views of a buffer when this accepts their layout; otherwise they are made contiguous. */
  readonly strided?: (layout: Layout, shape: Shape) => boolean;
  /** The spec has an `epilogue` hole for fused elementwise ops. */
  readonly epilogue?: boolean;
}

/** Reference of an op whose kernel family already holds the float64 definition for contiguous operands. */
export function familyReference<A>(
  lower: KernelLowering<A>,
): (ins: readonly Array64[], out: Array64, attrs: A) => void {
  return (ins, out, attrs) => {
    const shapes = ins.map((a) => a.shape);
    const spec = lower.spec(shapes, attrs, shapes.map(contiguous));
    out.data.set(
      lower.family.reference(
        spec,
        ins.map((a) => a.data),
      )[0],
    );
  };
}

export function contiguous(shape: Shape): Layout {
  return { offset: 0, strides: stridesOf(shape) };
}

/**
 * What happens to the result when the inputs are changed in a way that the op knows: seen(op(inputs)) =
 * after(op(changed)), for the float64 definition. "shifted rows", "permuted keys".
 */
export interface Law<A> {
  readonly name: string;
  /** Null where the law says nothing about this call. */
  of(
    ins: readonly Tensor[],
    attrs: A,
    d: Draw,
  ): {
    readonly ins: readonly Tensor[];
    readonly attrs?: A;
    after(changed: Tensor): Tensor;
    /** What of the result the law speaks of; all of it when absent. */
    seen?(result: Tensor): Tensor;
  } | null;
}

/** How exact the WGSL of an op is, and what else is known to hold of it: what engine/testing checks. */
export interface Trust<A> {
  /** Where the op is smooth: gradients are checked for inputs in this interval. */
  readonly domain?: readonly [lo: number, hi: number];
  /** WGSL against the reference in f32, relative to the largest magnitude of the result. */
  readonly rtol: number;
  /** Why `rtol` is what it is, in a line; needed unless it is 0. */
  readonly why?: string;
  /** Errors are relative to this at least: for results that pass through zero where the way there is of this size. */
  readonly unit?: number;
  /** Results are sums: `rtol` is relative to what the op makes of the inputs' magnitudes, which cancellation does not hide. */
  readonly sums?: true;
  readonly laws?: readonly Law<A>[];
}

export interface OpDef<A extends Attrs = AnySpec> extends Trust<A> {
  readonly name: string;
  /** The only place that validates; throws ShapeError. */
  shape(ins: readonly Shape[], attrs: A): Shape;
  /** dtype of the result; when absent that of the first input, and of an op with a kernel f32, from f32 alone. */
  dtype?(ins: readonly DType[], attrs: A): DType;
  /** The definition: plain loops in float64. */
  reference(ins: readonly Array64[], out: Array64, attrs: A): void;
  /** Gradients with respect to the inputs given that of the output; null where there is none. "none": not differentiable. */
  readonly vjp: ((g: Tensor, ins: readonly Tensor[], out: Tensor, attrs: A) => readonly (Tensor | null)[]) | "none";
  readonly lower: Lowering<A>;
  /** Takes and gives f16 as it is. Others compute in f32 between casts (`apply`); index maps need not say it. */
  readonly half?: true;
  /** From f16 to f32 it keeps every value: a kernel may read its input in its place. */
  readonly widens?: true;
  /** Computes in f32, and is told by the attribute `halves` that all its operands came from f16. */
  readonly halves?: true;
  draw(d: Draw): Sample<A>;
}

/** dtype rule of ops that compute in f32 only. */
export function floats(name: string): (ins: readonly DType[]) => DType {
  return (ins) => {
    const odd = ins.find((t) => t !== "f32");
    if (odd) throw new DTypeError(`${name}: expected f32, got ${odd} (cast it: x.cast("f32"))`);
    return "f32";
  };
}

/** dtype rule of ops on numbers that keep their kind: f32, i32, u32. */
export function numbers(name: string): (ins: readonly DType[]) => DType {
  return ([first, ...ins]) => {
    const odd = [first, ...ins].find((t) => t === "bool" || t !== first);
    if (odd) throw new DTypeError(`${name}: expected numbers, got ${odd} (cast it: x.cast("i32") counts what is true)`);
    return first;
  };
}

/** An op defined by other ops. `grad` expands it unless it has a vjp of its own, the fuser unless it has a kernel. */
export interface CompositeDef<A extends Attrs = AnySpec> extends Trust<A> {
  readonly name: string;
  shape(ins: readonly Shape[], attrs: A): Shape;
  dtype?(ins: readonly DType[], attrs: A): DType;
  decompose(ins: readonly Tensor[], attrs: A): Tensor;
  /** Takes operands of any dtypes as they are, f16 beside f32 too. */
  readonly half?: true;
  readonly vjp?: (g: Tensor, ins: readonly Tensor[], out: Tensor, attrs: A) => readonly (Tensor | null)[];
  readonly lower: KernelLowering<A> | PartsLowering;
  draw(d: Draw): Sample<A>;
}

export type AnyOp = OpDef | CompositeDef;

export function isComposite(op: AnyOp): op is CompositeDef {
  return "decompose" in op;
}

/** The one number that a leaf holds everywhere; undefined for leaves with memory and for everything that is computed. */
export function literalOf(node: Node): number | undefined {
  const { lower } = node.op;
  return lower?.kind === "leaf" ? lower.value?.(node.attrs) : undefined;
}

const table = new Map<string, AnyOp>();

/** Adds a record to the op table. Throws when the name is taken, or a field missing. */
export function defineOp<A extends Attrs>(def: OpDef<A>): OpDef<A> {
  return register(def, "defineOp", ["name", "shape", "reference", "vjp", "lower", "draw", "rtol"]);
}

/** Adds a composite record to the op table; without `lower` it has no kernel. Throws when the name is taken, or a field missing. */
export function defineComposite<A extends Attrs>(
  def: Omit<CompositeDef<A>, "lower"> & { readonly lower?: KernelLowering<A> },
): CompositeDef<A> {
  const whole = { ...def, lower: def.lower ?? ({ kind: "parts" } as const) };
  return register(whole, "defineComposite", ["name", "shape", "decompose", "draw", "rtol"]);
}

function register<T extends AnyOp>(def: T, op: string, required: readonly (keyof T & string)[]): T {
  const missing = required.filter((field) => def[field] === undefined);
  if (missing.length > 0) throw new TypeError(`${op}: ${def.name ?? "the record"} lacks ${missing.join(", ")}`);
  if (table.has(def.name)) throw new Error(`op ${def.name} is defined twice`);
  table.set(def.name, def);
  return def;
}

/** Every op, in the order of definition: what the generic tests loop over. */
export function allOps(): readonly AnyOp[] {
  return [...table.values()];
}
