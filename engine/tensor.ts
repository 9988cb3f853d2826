// Tensor: a description of a value, with one fluent method per op. Nothing is computed until `data()` or `item()`, or until
// a compiled step runs. Here: the class itself and the functions that make tensors. Its methods are in tensor/, a family a file
// and a class each, one extending the other:
//   Value (what a tensor is, and reading it) < Movement < Elementwise < Reduction < Product < Lookup < Tensor

import { checkDType, type Data, type DType, dtypeOf, toData } from "./dtype.ts";
import { got, ShapeError, show } from "./error.ts";
import type { Node } from "./graph.ts";
import type { AnyOp, Attrs } from "./ops/op.ts";
import { checkShape, numel, type Shape } from "./shape.ts";
import { Storage } from "./storage.ts";
import { applied, none } from "./tensor/apply.ts";
import { filled, stored } from "./tensor/leaves.ts";
import { Lookup } from "./tensor/lookup.ts";

export type { ConvOptions, ConvTransposeOptions, Padding } from "./ops/conv_options.ts";
export type { Operand } from "./tensor/elementwise.ts";
export type { ReduceOptions, ScanOptions } from "./tensor/reduction.ts";

/**
 * A value of a shape and a dtype, made by `tensor(...)`, `zeros(...)` and methods. Methods return new tensors and throw where
 * they are called: ShapeError for shapes and axes that they cannot take, DTypeError for dtypes, TypeError for what is no
 * tensor or number. Axes may be negative, counted from the end. Shapes of two operands broadcast as NumPy's do.
 */
export class Tensor extends Lookup {
  protected of(node: Node): Tensor {
    return new Tensor(node);
  }
  protected self(): Tensor {
    return this;
  }
}

/**
 * Applies an op of the table to tensors: shape and dtype rules run here, where the line was written. Throws what they throw,
 * and DeviceError where the open device could not bind what must lie in memory.
 */
export function apply(op: AnyOp, ins: readonly Tensor[], attrs: Attrs = none): Tensor {
  const nodes = ins.map((t) => t.node);
  return new Tensor(applied(op, nodes, attrs));
}

/** Tensor over values that a device or the host holds. */
export function fromStorage(storage: Storage): Tensor {
  return new Tensor(stored(storage));
}

/** Values one after another, as they were given. Throws where they are nested, or no numbers. */
function flatten(values: Data | number | readonly number[], dtype: DType | undefined): Data | readonly number[] {
  if (typeof values === "number") return [values];
  if (Array.isArray(values)) {
    const odd = values.find((v) => typeof v !== "number" && typeof v !== "boolean");
    if (odd?.length !== undefined && typeof odd !== "string")
      throw new ShapeError("tensor: nested arrays: give flat values and a shape, tensor([1, 2, 3, 4], [2, 2])");
    if (odd !== undefined) throw new TypeError(`tensor: expected numbers, got ${got(odd)} among them`);
    return values;
  }
  const host = [Float32Array, Int32Array, Uint32Array].some((type) => values instanceof type);
  if (!host && !(dtype && ArrayBuffer.isView(values)))
    throw new TypeError(
      `tensor: expected a number, an array of numbers or a Float32Array, Int32Array or Uint32Array, got ${got(values)}`,
    );
  return values as Data;
}

/**
 * Tensor of host values: a typed array or flat numbers (as f32) with a shape; without one, a vector. Throws ShapeError where
 * they are nested or their count is not the shape's, TypeError where they are no numbers.
 */
export function tensor(values: Data | number | readonly number[], shape?: Shape, dtype?: DType): Tensor {
  if (dtype) checkDType("tensor", dtype);
  const flat = flatten(values, dtype);
  const to = shape ?? (typeof values === "number" ? [] : [flat.length]);
  checkShape("tensor", to);
  if (numel(to) !== flat.length) throw new ShapeError(`tensor: ${flat.length} values for shape ${show(to)}`);
  const type = dtype ?? (Array.isArray(flat) ? "f32" : dtypeOf(flat as Data));
  return fromStorage(new Storage(to, type, toData(type, flat)));
}

/** `value` everywhere: costs nothing, kernels inline it. Throws ShapeError for sizes that are no whole numbers from 0 on. */
export function full(shape: Shape, value: number, dtype: DType = "f32"): Tensor {
  checkShape("full", shape);
  checkDType("full", dtype);
  return new Tensor(filled(shape, value, dtype));
}

/** f32 zeros of a shape. Throws as `full`. */
export function zeros(shape: Shape): Tensor {
  checkShape("zeros", shape);
  return full(shape, 0);
}

/** f32 ones of a shape. Throws as `full`. */
export function ones(shape: Shape): Tensor {
  checkShape("ones", shape);
  return full(shape, 1);
}
