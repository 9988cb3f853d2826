// Golden data: arrays that other implementations computed, in folders beside the checkout. A reader of its own (so that a
// mistake in the engine's checkpoint reader does not excuse itself), and comparison with the error bounds stored with them.

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, test } from "vitest";
import { type Parameter, type Shape, type Tensor, tensor } from "../engine/index.ts";
import { difference } from "./close.ts";

const root = fileURLToPath(new URL("../../shared/golden/", import.meta.url));

/** A group of tests on one folder of golden data; skipped by name where the folder is absent. */
export function describeGolden(folder: string, body: (golden: Golden) => void): void {
  describeFolder(folder, () => body(new Golden(folder)));
}

/** The same for tests that read the folder themselves: its path. */
export function describeFolder(folder: string, body: (path: string) => void): void {
  if (existsSync(`${root}${folder}`)) describe(`golden ${folder}`, () => body(`${root}${folder}`));
  else test.skip(`golden ${folder}: ../shared/golden/${folder} is absent`, () => {});
}

export interface Stored {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** Every tensor of a safetensors file as float64. */
export function readSafetensors(path: string): Map<string, Stored> {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: number[] }
  >;
  delete header.__metadata__;
  const values = (dtype: string, raw: ArrayBuffer): ArrayLike<number> => {
    if (dtype === "F32") return new Float32Array(raw);
    if (dtype === "F64") return new Float64Array(raw);
    if (dtype === "I64") return Array.from(new BigInt64Array(raw), Number);
    throw new Error(`${path}: no reader for ${dtype}`);
  };
  const entries = Object.entries(header).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [from, to],
      },
    ]): [string, Stored] => {
      const raw = new Uint8Array(bytes.subarray(start + from, start + to)).buffer;
      return [name, { shape, data: Float64Array.from(values(dtype, raw)) }];
    },
  );
  return new Map(entries);
}

/** Reorders axes: result axis i is source axis order[i]. */
export function permuted({ shape, data }: Stored, order: readonly number[]): Stored {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const to = order.map((o) => shape[o]);
  const out = data.map((_, flat) => {
    let [rest, at] = [flat, 0];
    for (let i = to.length - 1; i >= 0; i--) {
      at += (rest % to[i]) * strides[order[i]];
      rest = Math.floor(rest / to[i]);
    }
    return data[at];
  });
  return { shape: to, data: out };
}

/** [n, c, ...spatial] -> [n, ...spatial, c] */
export function channelsLast(x: Stored, from = 1): Stored {
  const axes = x.shape.map((_, i) => i);
  return permuted(x, [...axes.filter((i) => i !== from), from]);
}

/** A weight, or its gradient, as the parameter holds it: convolutions lie as [...kernel, in, out]. */
export function asParameter(x: Stored, p: Parameter): Stored {
  const axes = x.shape.map((_, i) => i);
  return p.layout === "conv" ? permuted(x, [...axes.slice(2), 1, 0]) : x;
}

export function f32(x: Stored): Tensor {
  return tensor(Float32Array.from(x.data), x.shape);
}
export function i32(x: Stored): Tensor {
  return tensor(Int32Array.from(x.data), x.shape);
}

/** Weights into a model's state by name. Throws with the names that are missing, left over or misshapen. */
export function loadWeights(state: ReadonlyMap<string, Parameter>, weights: ReadonlyMap<string, Stored>): void {
  const missing = [...state.keys()].filter((name) => !weights.has(name));
  const extra = [...weights.keys()].filter((name) => !state.has(name));
  if (missing.length + extra.length > 0) throw new Error(`missing: ${missing.join()}; left over: ${extra.join()}`);
  for (const [name, p] of state) {
    const { shape, data } = asParameter(weights.get(name) as Stored, p);
    if (shape.join() !== p.shape.join()) throw new Error(`${name}: [${shape}] in the file, [${p.shape}] in the model`);
    p.write(data);
  }
}

interface Tolerance {
  readonly rel_to_max: number;
}

export class Golden {
  readonly io: ReadonlyMap<string, Stored>;
  readonly #folder: string;
  readonly #tolerances: Readonly<Record<string, Tolerance>>;

  constructor(folder: string) {
    this.#folder = `${root}${folder}/`;
    this.io = readSafetensors(`${this.#folder}io.safetensors`);
    this.#tolerances = this.json("tolerance.json");
  }

  weights(file = "weights.safetensors"): Map<string, Stored> {
    return readSafetensors(`${this.#folder}${file}`);
  }

  json<T>(file: string): T {
    return JSON.parse(readFileSync(`${this.#folder}${file}`, "utf8")) as T;
  }

  get(name: string): Stored {
    const found = this.io.get(name);
    if (!found) throw new Error(`golden data has no ${name}`);
    return found;
  }

  /**
   * What is wrong with `got`, or null. The bound is ten times what float32 cost the implementation that made the data,
   * its README's advice for other summation orders.
   */
  problem(name: string, got: ArrayLike<number>, want: ArrayLike<number> = this.get(name).data): string | null {
    const found = difference(got, want, { rtol: 10 * this.tolerance(name) });
    return found && `${name}: ${found}`;
  }

  /** Largest error relative to the largest value when the same implementation ran in float32. */
  tolerance(name: string): number {
    const tolerance = this.#tolerances[name];
    if (!tolerance) throw new Error(`golden data has no tolerance for ${name}`);
    return tolerance.rel_to_max;
  }
}
