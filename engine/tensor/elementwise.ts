// Methods that compute element by element: arithmetic, comparisons, functions of one number, casts. Shapes are broadcast
// here and numbers become constants, so that op records (ops/elementwise.ts) see equal shapes, and tensors alone.

import { checkDType, type DType, isFloat } from "../dtype.ts";
import { DTypeError, got } from "../error.ts";
import * as elementwise from "../ops/elementwise.ts";
import { constant } from "../ops/leaf.ts";
import type { AnyOp } from "../ops/op.ts";
import { broadcast } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { filled } from "./leaves.ts";
import { Movement } from "./movement.ts";

/** A number stands for a tensor of the other operand's dtype that holds it everywhere. */
export type Operand = Elementwise | number;

export abstract class Elementwise extends Movement {
  /** this + y */
  add(y: Operand): Tensor {
    return this.binary(elementwise.add, y);
  }
  /** this - y */
  sub(y: Operand): Tensor {
    return this.binary(elementwise.sub, y);
  }
  /** this y, element by element; `matmul` is the matrix product. */
  mul(y: Operand): Tensor {
    return this.binary(elementwise.mul, y);
  }
  /** this / y, of floats */
  div(y: Operand): Tensor {
    // A product is faster, and exact where the reciprocal is; k / k must be 1 for every k.
    const exact = typeof y === "number" && this.dtype === "f32" && Number.isInteger(Math.log2(Math.abs(y)));
    return exact ? this.mul(1 / y) : this.binary(elementwise.div, y);
  }
  /** this^y, of floats; a negative base wants a whole y. */
  pow(y: Operand): Tensor {
    // Products and roots are more accurate than exp2(y log2(x)).
    if (y === 1) return this.self();
    if (y === 2 || y === 3) return y === 2 ? this.square() : this.square().mul(this);
    if (y === 0.5 || y === -0.5) return y > 0 ? this.sqrt() : this.rsqrt();
    if (y === -1) return this.reciprocal();
    return this.binary(elementwise.pow, y);
  }
  /** The larger of the two; at ties each gets half of the gradient. */
  maximum(y: Operand): Tensor {
    return this.binary(elementwise.maximum, y);
  }
  /** The smaller of the two; at ties each gets half of the gradient. */
  minimum(y: Operand): Tensor {
    return this.binary(elementwise.minimum, y);
  }
  /** bool: this < y */
  less(y: Operand): Tensor {
    return this.binary(elementwise.less, y);
  }
  /** bool: this == y */
  equal(y: Operand): Tensor {
    return this.binary(elementwise.equal, y);
  }
  /** bool: this > y */
  greater(y: Operand): Tensor {
    return this.operand("greater", y).less(this);
  }
  /** bool: this <= y */
  lessEqual(y: Operand): Tensor {
    return this.greater(y).not();
  }
  /** bool: this >= y */
  greaterEqual(y: Operand): Tensor {
    return this.less(y).not();
  }
  /** bool: this != y */
  notEqual(y: Operand): Tensor {
    return this.equal(y).not();
  }
  /** Of bool tensors. */
  not(): Tensor {
    return this.equal(this.of(filled([], 0, "bool")));
  }
  /** Of bool tensors. */
  and(y: Tensor): Tensor {
    return this.where(y, 0);
  }
  /** Of bool tensors. */
  or(y: Tensor): Tensor {
    return this.where(1, y);
  }
  /** Of bool tensors. */
  xor(y: Tensor): Tensor {
    return this.notEqual(y);
  }
  /** bool: neither NaN nor infinite */
  isFinite(): Tensor {
    return this.apply(elementwise.finite, [this]);
  }
  /** this ? a : b, for a bool tensor; at least one of a and b is a tensor. */
  where(a: Operand, b: Operand): Tensor {
    const like = typeof a === "number" ? b : a;
    if (typeof like === "number") throw new TypeError("where: one of the two values must be a tensor");
    if (!(like instanceof Elementwise)) throw new TypeError(`where: expected a tensor or a number, got ${got(like)}`);
    const [x, y] = [like.operand("where", a), like.operand("where", b)];
    const shape = broadcast("where", this.shape, broadcast("where", x.shape, y.shape));
    return this.apply(elementwise.where, [this.expand(shape), x.expand(shape), y.expand(shape)]);
  }
  /** -x */
  neg(): Tensor {
    return this.apply(elementwise.neg, [this]);
  }
  /** e^x */
  exp(): Tensor {
    return this.apply(elementwise.exp, [this]);
  }
  /** Natural logarithm. */
  log(): Tensor {
    return this.apply(elementwise.log, [this]);
  }
  sqrt(): Tensor {
    return this.apply(elementwise.sqrt, [this]);
  }
  /** 1 / sqrt(x) */
  rsqrt(): Tensor {
    return this.apply(elementwise.rsqrt, [this]);
  }
  /** 1 / x */
  reciprocal(): Tensor {
    return this.apply(elementwise.reciprocal, [this]);
  }
  /** Of radians, to 3e-7 for |x| <= 1e5. */
  sin(): Tensor {
    return this.apply(elementwise.sin, [this]);
  }
  /** Of radians, to 3e-7 for |x| <= 1e5. */
  cos(): Tensor {
    return this.apply(elementwise.cos, [this]);
  }
  tanh(): Tensor {
    return this.apply(elementwise.tanh, [this]);
  }
  /** 1 / (1 + exp(-x)) */
  sigmoid(): Tensor {
    return this.apply(elementwise.sigmoid, [this]);
  }
  /** The error function. */
  erf(): Tensor {
    return this.apply(elementwise.erf, [this]);
  }
  abs(): Tensor {
    return this.apply(elementwise.abs, [this]);
  }
  /** -1, 0 or 1 */
  sign(): Tensor {
    return this.apply(elementwise.sign, [this]);
  }
  /** The largest whole number that is not above. */
  floor(): Tensor {
    return this.apply(elementwise.floor, [this]);
  }
  /** The smallest whole number that is not below. */
  ceil(): Tensor {
    return this.neg().floor().neg();
  }
  /** To the nearest whole number, halves to the even one. */
  round(): Tensor {
    return this.apply(elementwise.round, [this]);
  }
  /** Into [low, high]; one of them may be absent. The gradient passes where the value is kept, bounds included. */
  clamp(low?: number, high?: number): Tensor {
    const raised = low === undefined ? this.self() : this.less(low).where(low, this);
    return high === undefined ? raised : this.greater(high).where(high, raised);
  }
  /** x^2 */
  square(): Tensor {
    return this.mul(this);
  }
  /** max(x, 0), with slope 0 at 0. */
  relu(): Tensor {
    return this.apply(elementwise.relu, [this]);
  }
  /** log(1 + exp(x)), for x of any size. */
  softplus(): Tensor {
    return this.apply(elementwise.softplus, [this]);
  }
  /** x sigmoid(x) */
  silu(): Tensor {
    return this.mul(this.sigmoid());
  }
  /** The exact one: x (1 + erf(x / sqrt 2)) / 2 */
  gelu(): Tensor {
    return this.mul(this.mul(Math.SQRT1_2).erf().add(1)).mul(0.5);
  }
  /** Float to integer rounds towards zero, f32 to f16 to the nearest; what f16 cannot hold becomes infinite. */
  cast(to: DType): Tensor {
    if (to === this.dtype) return this.self();
    checkDType("cast", to);
    if (to === "f16" && this.node.op === constant)
      return this.of(filled(this.shape, this.node.attrs.value as number, to));
    const direct = to === "f32" || this.dtype === "f32" || (to !== "f16" && this.dtype !== "f16");
    return direct ? this.apply(elementwise.cast, [this], { to }) : this.cast("f32").cast(to);
  }
  /** The same value, through which no gradient flows. */
  detach(): Tensor {
    return this.apply(elementwise.detach, [this]);
  }

  /** Another operand as a tensor, of this dtype where it is a number. */
  private operand(op: string, y: Operand): Elementwise {
    if (y instanceof Elementwise) return y;
    if (typeof y !== "number") throw new TypeError(`${op}: expected a tensor or a number, got ${got(y)}`);
    if (!isFloat(this.dtype) && !Number.isInteger(y))
      throw new DTypeError(`${y} is not a whole number: cast the ${this} to f32 first`);
    return this.of(filled([], y, this.dtype));
  }

  private binary(op: AnyOp, y: Operand): Tensor {
    if (this.dtype === "f16" && typeof y === "number") {
      const result = this.cast("f32").binary(op, y); // the number is not rounded to f16, the result is
      return result.dtype === "f32" ? result.cast("f16") : result;
    }
    const other = this.operand(op.name, y);
    const shape = broadcast(op.name, this.shape, other.shape);
    return this.apply(op, [this.expand(shape), other.expand(shape)]);
  }
}
