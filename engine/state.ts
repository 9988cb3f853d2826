// State: tensors that outlive a step and are updated in place (parameters, optimiser moments, averages), and the random
// generator, whose counter is such state. A Parameter is a leaf; inside a step, reading it after `assign` gives the new value.

import { normalTable, threefry2x32 } from "../kernels/random.ts";
import { device, type Program, selfContained } from "./device.ts";
import { checkDType, type Data, type DType, emptyData, isFloat, toData } from "./dtype.ts";
import { DTypeError, got, ShapeError, show } from "./error.ts";
import { leaf, type Node } from "./graph.ts";
import * as leaves from "./ops/leaf.ts";
import { checkShape, numel, type Shape, sameShape } from "./shape.ts";
import { Storage } from "./storage.ts";
import { Tensor, tensor } from "./tensor.ts";
import { currentTrace, readsHalves } from "./trace.ts";

export interface ParameterOptions {
  readonly dtype?: DType;
  /** false makes a buffer: state that no optimiser moves and that stays in its dtype in mixed precision. */
  readonly trainable?: boolean;
  /** How its axes are ordered here: "conv" is [...kernel, in, out], which PyTorch files hold as [out, in, ...kernel]. */
  readonly layout?: "plain" | "conv";
}

export class Parameter extends Tensor {
  #storage: Storage;
  /** Frozen parameters get no gradients and no optimiser moments. */
  trainable: boolean;
  /** Made with `trainable: false`: running statistics, counters. Other frozen parameters are weights that rest. */
  readonly buffer: boolean;
  readonly layout: "plain" | "conv";
  #leaf: Node;

  /**
   * Values, or what makes them on first use: a model can be counted and planned without allocating its weights. Throws
   * ShapeError when the count of values differs, TypeError when there are none.
   */
  constructor(shape: Shape, init: ArrayLike<number> | (() => Data), o: ParameterOptions = {}) {
    const dtype = o.dtype ?? "f32";
    checkShape("Parameter", shape);
    checkDType("Parameter", dtype);
    const host = typeof init === "function" ? () => madeValues(shape, init(), dtype) : hostValues(shape, init, dtype);
    const storage = new Storage(shape, dtype, host, true);
    const node = leaf(leaves.state, {}, shape, dtype, storage);
    super(node);
    this.#storage = storage;
    this.trainable = o.trainable ?? true;
    this.buffer = !this.trainable;
    this.layout = o.layout ?? "plain";
    this.#leaf = node;
  }

  override get history(): Node {
    return this.node;
  }
  override get node(): Node {
    const node = currentTrace()?.assigns.get(this.#leaf) ?? this.#leaf;
    return (this.trainable || !this.buffer) && node.dtype === "f32" && readsHalves()
      ? new Tensor(node).cast("f16").node
      : node;
  }

  protected override self(): Tensor {
    return new Tensor(this.node);
  }

  /** Where the values live. */
  get storage(): Storage {
    return this.#storage;
  }

  /** The state itself, whatever the step has assigned so far. */
  get leaf(): Node {
    return this.#leaf;
  }

  /** New value from the next read on. In a compiled step it is written back when the step runs; outside, at once. */
  assign(value: Tensor): void {
    if (!sameShape(value.shape, this.shape) || value.dtype !== this.#leaf.dtype) {
      throw new ShapeError(
        `assign: a ${this.#leaf.dtype}${show(this.shape)} parameter cannot hold ${value.dtype}${show(value.shape)}`,
      );
    }
    const trace = currentTrace();
    if (trace) {
      trace.assigns.set(this.#leaf, value.node);
      return;
    }
    const assigns = [[this.#leaf, value.node]] as const;
    const program: Program = { name: "assign", inputs: {}, outputs: {}, assigns, reused: false };
    device().run(selfContained(program), {});
  }

  /**
   * Holds its values as `dtype`, f16 or f32, from now on; nothing is computed. Steps that were traced before keep the old
   * memory, so it is done before training or sampling. Throws Error once the values are on a device alone, and in a step.
   */
  convert(dtype: "f16" | "f32"): void {
    const old = this.#storage;
    if (old.dtype === dtype) return;
    if (!isFloat(old.dtype)) throw new DTypeError(`convert: a ${this.#leaf.dtype} parameter cannot become ${dtype}`);
    if (currentTrace() || !old.onHost)
      throw new Error(
        `convert: ${this} is in use: convert a model before its first step, and load its values afterwards`,
      );
    this.#storage = new Storage(this.shape, dtype, () => old.host() as Data, true);
    this.#leaf = leaf(leaves.state, {}, this.shape, dtype, this.#storage);
  }

  /** Replaces the initialiser; runs on first use. */
  initialise(init: () => Data): void {
    const { shape, dtype } = this.storage;
    this.storage.write(() => madeValues(shape, init(), dtype));
  }

  /** Replaces the values from the host. Throws when the count differs. */
  write(values: ArrayLike<number>): void {
    if (values.length !== numel(this.shape))
      throw new ShapeError(`write: ${values.length} values for a parameter of shape ${show(this.shape)}`);
    this.storage.write(toData(this.dtype, values));
  }
}

/** Values of a new parameter; an array of the right type is kept, not copied. */
function hostValues(shape: Shape, values: ArrayLike<number>, dtype: DType): Data {
  if (typeof (values as ArrayLike<number> | null | undefined)?.length !== "number")
    throw new TypeError(`Parameter: expected an array of values or a function that makes it, got ${values}`);
  if (values.length !== numel(shape))
    throw new ShapeError(`Parameter: ${values.length} values for a parameter of shape ${show(shape)}`);
  const fits = values.constructor === emptyData(dtype, 0).constructor;
  return fits ? (values as Data) : toData(dtype, values);
}

/** What an initialiser has made. */
function madeValues(shape: Shape, values: Data, dtype: DType): Data {
  const wanted = emptyData(dtype, 0).constructor.name;
  if (values?.constructor.name !== wanted)
    throw new TypeError(
      `Parameter: the initialiser of ${dtype}${show(shape)} must make a ${wanted}, got ${got(values)}`,
    );
  if (values.length !== numel(shape))
    throw new ShapeError(`Parameter: the initialiser of ${dtype}${show(shape)} made ${values.length} values`);
  return values;
}

let table: Tensor | undefined;

/** FNV-1a of a string: names of generator branches become numbers. */
export function hashName(name: string): number {
  let h = 0x811c9dc5;
  for (const c of new TextEncoder().encode(name)) h = Math.imul(h ^ c, 0x01000193);
  return h >>> 0;
}

/**
 * Counter-based generator (Threefry-2x32, Salmon et al. 2011). Its state is (key0, key1, counter, 0): draws inside a
 * compiled step advance the counter on the device, so every call draws fresh numbers, the same ones for the same seed.
 */
export class Rng {
  readonly state: Parameter;
  readonly #key: readonly [number, number];
  #eager = 0;

  constructor(seed: number | readonly [number, number]) {
    this.#key = typeof seed === "number" ? [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] : seed;
    this.state = new Parameter([4], new Uint32Array([...this.#key, 0, 0]), { dtype: "u32", trainable: false });
  }

  /** An independent generator for a named purpose. */
  split(name: string): Rng {
    const [a, b] = threefry2x32(this.#key[0], this.#key[1], hashName(name), 0x5eed);
    return new Rng([a, b]);
  }

  /** Standard normal numbers. */
  normal(shape: Shape): Tensor {
    return this.#draw("normal", shape);
  }
  /** Uniform in [0, 1), multiples of 2^-24. */
  uniform(shape: Shape): Tensor {
    return this.#draw("uniform", shape);
  }
  /** Whole numbers 0 <= n < below, i32; below at most 2^24, else RangeError: `uniform` has no more values. */
  integers(shape: Shape, below: number): Tensor {
    if (!(Number.isInteger(below) && below >= 1 && below <= 2 ** 24))
      throw new RangeError(`integers: expected a whole number from 1 to 2^24 as the bound, got ${below}`);
    return this.uniform(shape)
      .mul(below)
      .floor()
      .minimum(below - 1)
      .cast("i32");
  }

  #draw(kind: "normal" | "uniform", shape: Shape): Tensor {
    checkShape(kind, shape);
    const trace = currentTrace();
    table ??= tensor(normalTable());
    const extra = kind === "normal" ? [table] : [];
    if (!trace) {
      // Outside a step there is no moment at which the state advances, so such draws use a stream of their own.
      const state = tensor(new Uint32Array([this.#key[0] ^ 0x9e3779b9, this.#key[1], this.#eager++, 0]));
      return state.random({ kind, shape: [...shape], draw: 0 }, ...extra);
    }
    const draw = trace.draws.get(this.state.leaf) ?? 0;
    trace.draws.set(this.state.leaf, draw + 1);
    const start = new Tensor(this.state.leaf);
    this.state.assign(start.add(tensor(new Uint32Array([0, 0, draw + 1, 0]))));
    return start.random({ kind, shape: [...shape], draw }, ...extra);
  }
}

/** Host twin of a generator branch: word `i` of the stream that (seed, name) opens, for shuffles and other host choices. */
export function bitsFrom(seed: number, name: string): (i: number) => number {
  const [a, b] = threefry2x32(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, hashName(name), 0x5eed);
  return (i) => threefry2x32(a, b, i >>> 0, 0)[0];
}
