// How far a result is from the reference: values that another implementation computed (ref.json) where that file is at
// hand, and otherwise float64 loops for the workloads that are small enough. Called by child.ts.

import { existsSync, readFileSync } from "node:fs";
import { R } from "./data.ts";

/** 256 evenly spaced elements (all, when there are fewer), and the norm and largest magnitude of the whole. */
export interface Samples {
  readonly n: number;
  readonly samples: readonly number[];
  readonly norm?: number;
  readonly max?: number;
}

export interface Reference {
  readonly outputs?: Readonly<Record<string, Samples>>;
  /** Loss before each of the first updates. */
  readonly losses?: readonly number[];
}

export interface Errors {
  /** Largest error, relative to the largest magnitude (outputs) or to the value (losses); of token ids, the share that differs. */
  readonly err: number;
  /** Relative error of the norms, where they are known. */
  readonly errNorm?: number;
  /** Number of losses compared, where they are what was compared. */
  readonly steps?: number;
}

/** Index of sample k of `count` in an array of n. */
export function sampleAt(k: number, n: number, count: number): number {
  return Math.floor((k * n) / count);
}

/** The reference of a workload, or null when there is none here. */
export function reference(id: string, file: string): Reference | null {
  if (!existsSync(file)) return id in small ? { outputs: small[id]() } : null;
  const known = JSON.parse(readFileSync(file, "utf8"))[id];
  if (!known) return null;
  const { losses, ...outputs } = known;
  return losses ? { losses } : { outputs };
}

/** NaN counts as the worst there is. */
function worse(a: number, b: number): number {
  return Number.isNaN(b) ? Number.POSITIVE_INFINITY : Math.max(a, b);
}

export function outputErrors(
  id: string,
  got: Readonly<Record<string, ArrayLike<number>>>,
  want: Readonly<Record<string, Samples>>,
): Errors {
  let [err, errNorm]: [number, number | undefined] = [0, undefined];
  for (const [name, { n, samples, norm, max }] of Object.entries(want)) {
    const values = got[name];
    if (values?.length !== n) throw new Error(`${id}: expected ${n} values of ${name}, got ${values?.length}`);
    const off = samples.map((s, k) => Math.abs(values[sampleAt(k, n, samples.length)] - s));
    const scale = max ?? Math.max(...samples.map(Math.abs));
    const part = id === "W11.sample" ? off.filter((e) => e !== 0).length / n : off.reduce(worse, 0) / scale;
    err = worse(err, part);
    if (norm !== undefined) errNorm = worse(errNorm ?? 0, Math.abs(normOf(values) / norm - 1));
  }
  return { err, errNorm };
}

function normOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return Math.sqrt(sum);
}

/** Over the first updates: the loss before each of them and the one after the last. */
export function lossErrors(got: readonly number[], want: readonly number[]): Errors {
  const steps = Math.min(got.length, want.length);
  const errors = want.slice(0, steps).map((w, i) => Math.abs(got[i] / w - 1));
  return { err: errors.reduce(worse, 0), steps };
}

// ---- float64, without a file

type Small = () => Readonly<Record<string, Samples>>;

function sampled(n: number, at: (i: number) => number): Readonly<Record<string, Samples>> {
  const count = Math.min(n, 256);
  return { y: { n, samples: Array.from({ length: count }, (_, k) => at(sampleAt(k, n, count))) } };
}

function product(batch: number, m: number, k: number, n: number): Small {
  return () => {
    const [a, b] = [R([batch, m, k], 1), R([batch, k, n], 2)];
    return sampled(batch * m * n, (i) => {
      const [group, row, column] = [Math.floor(i / (m * n)), Math.floor(i / n), i % n];
      let sum = 0;
      for (let j = 0; j < k; j++) sum += a[row * k + j] * b[(group * k + j) * n + column];
      return sum;
    });
  };
}

const small: Readonly<Record<string, Small>> = {
  "W1.512": product(1, 512, 512, 512),
  "W1.1024": product(1, 1024, 1024, 1024),
  W1b: product(32, 256, 64, 256),
  W6: () => {
    const x = R([4194304], 1);
    const f = (v: number): number => Math.max(Math.exp(v / (1 + Math.exp(-(v * 1.1 + 0.3)))) + v, 0) * 0.5;
    return sampled(x.length, (i) => f(x[i]));
  },
  "W7.full": () => sampled(1, () => R([4194304], 1).reduce((a, b) => a + b, 0)),
  "W7.row": () => {
    const x = R([4096, 1024], 1);
    return sampled(4096, (i) => x.subarray(i * 1024, (i + 1) * 1024).reduce((a, b) => a + b, 0));
  },
};
