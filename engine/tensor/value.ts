// The root of a tensor's classes: what a value is (a node, with its shape and dtype), how it is had from the device, and how
// ops are applied to it. The ops are methods of the classes beside this file, a family each; every class extends the one
// before, and Tensor (tensor.ts) the last. What only its own class calls is `private` there, not `#`: a class with methods
// named with # marks every instance that is made, which costs the tracing of a step several per cent.

import { device, type Program, selfContained } from "../device.ts";
import type { Data, DType } from "../dtype.ts";
import { ShapeError, show } from "../error.ts";
import { leaf, type Node } from "../graph.ts";
import { data } from "../ops/leaf.ts";
import type { AnyOp, Attrs } from "../ops/op.ts";
import { type Dims, dims, numel, type Shape } from "../shape.ts";
import type { Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { currentTrace } from "../trace.ts";
import { applied, none } from "./apply.ts";
import { stored } from "./leaves.ts";

export abstract class Value {
  readonly #node: Node;
  /** The value in memory, once it has been asked for. */
  #read: Node | null = null;

  /** Use `tensor(...)`, `zeros(...)` or methods; a node is the engine's own currency. */
  constructor(node: Node) {
    this.#node = node;
  }

  /** The tensor of a node. Tensor defines it: the classes below Tensor do not know their heir. */
  protected abstract of(node: Node): Tensor;

  /** This value, from now on: what methods return that have nothing to do. A Parameter's own value changes with `assign`. */
  protected abstract self(): Tensor;

  /** `op` of tensors, this among them or not: what every method comes to. */
  protected apply(op: AnyOp, ins: readonly Value[], attrs: Attrs = none): Tensor {
    const nodes = ins.map((t) => t.node);
    return this.of(applied(op, nodes, attrs));
  }

  /** What ops on this tensor take: the value in memory where there is one. */
  get node(): Node {
    return this.#read ?? this.#node;
  }
  /** How the value came about, also after it has been read: what gradients follow. */
  get history(): Node {
    return this.#node;
  }
  get shape(): Shape {
    return this.#node.shape;
  }
  get dtype(): DType {
    return this.node.dtype;
  }
  get rank(): number {
    return this.shape.length;
  }

  /** Sizes by name; throws ShapeError when the rank differs: `const { b, c } = x.dims("b c")`. */
  dims<S extends string>(spec: S): Dims<S> {
    return dims(this.shape, spec);
  }

  /** Values in row-major order. Waits for the device. */
  async data(): Promise<Data> {
    return device().read(this.realise());
  }

  /** The value of a tensor with one element; throws ShapeError when there are others. Waits for the device. */
  async item(): Promise<number> {
    if (numel(this.shape) !== 1)
      throw new ShapeError(`item: ${show(this.shape)} has ${numel(this.shape)} elements, not one`);
    return (await this.data())[0];
  }

  /** Computes now (without waiting) and stays: results of a compiled step otherwise last until its second next call. */
  keep(): Tensor {
    return this.of(stored(evaluate(this.node)));
  }

  /** Memory that holds the value, computing it if need be. For devices and `compile`. */
  realise(): Storage {
    if (currentTrace())
      throw new Error("a value was asked for inside a compiled step: return the tensor from the step instead");
    if (!this.node.storage) this.#read = leaf(data, { read: true }, this.shape, this.dtype, evaluate(this.node));
    return this.node.storage as Storage;
  }

  toString(): string {
    return `Tensor ${this.dtype}${show(this.shape)}`;
  }
  /** What console.log prints in Node. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
  /** There is no synchronous value: `a < b` and `if (a)` on tensors are mistakes that tsc lets through. */
  valueOf(): never {
    throw new TypeError(`a ${this} has no value yet: use less(), where(), or await item()`);
  }
}

/** Runs a program with one output and returns where the value is. */
function evaluate(node: Node): Storage {
  const program: Program = { name: "eager", inputs: {}, outputs: { value: node }, assigns: [], reused: false };
  return device().run(selfContained(program), {}).value;
}
