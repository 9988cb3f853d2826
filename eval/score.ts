// What a metric returns: a value that carries how it was measured, so that it can be believed, repeated, and not be held
// against a value that was measured otherwise. Also the bootstrap that gives every score its interval. Pure functions; the
// metrics beside this file make scores, the command line prints them.

import { bitsFrom } from "../engine/index.ts";

/** What is computed, in the order of the paper's tables. */
export const METRICS = ["vqa", "fvd", "clip"] as const;
export type Metric = (typeof METRICS)[number];

/** All that two scores must share before they may stand side by side. Plain data. */
export interface Protocol {
  /** Clips scored; of as many real ones where there is something to be near to. */
  readonly n: number;
  /** Pixels a side of the clips, before any network's own resizing. */
  readonly size: number;
  /** Frames taken of each clip, and what becomes of them: "loop to 16". */
  readonly frames: number;
  readonly extension: string;
  /** Encoder and decoder that all clips went through. */
  readonly clips: string;
  /** Of the network: frames to tensors, with a version. */
  readonly preprocessing: string;
  /** The network, and the sha256 of its weights. */
  readonly extractor: string;
  readonly extractorHash: string;
  /** sha256 of the real clips compared with, and of the captions that were candidates; null where there are none. */
  readonly real: string | null;
  readonly captions: string | null;
}

export interface Score {
  /** "FVD" with the published network alone; "FVD-x" with any other. */
  readonly name: string;
  readonly value: number;
  readonly better: "lower" | "higher";
  readonly protocol: Protocol;
  /** What real clips score in the place of generated ones: the least distance, or likeness, that can be asked for. */
  readonly floor: { readonly value: number; readonly n: number } | null;
  /** Bootstrap interval of `share` of the resamples; null where there are too few clips. */
  readonly interval: Interval | null;
  /** Of all that was drawn: resamples, halves of the real set, fragments. */
  readonly seed: number;
  /** Further numbers of the same measurement, such as the share of captions that were cut. */
  readonly also: Readonly<Record<string, number>>;
}

/** Scores that were not measured in the same way. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

/** Every way in which two scores were measured unlike each other: "size 16 and 64". Empty: they may be compared. */
export function unlike(a: Score, b: Score): string[] {
  const show = (value: string | number | null): string =>
    typeof value === "string" && /^[0-9a-f]{64}$/.test(value) ? value.slice(0, 8) : String(value ?? "none");
  const keys = Object.keys(a.protocol) as (keyof Protocol)[];
  const fields = keys.filter((key) => a.protocol[key] !== b.protocol[key]);
  const name = a.name === b.name ? [] : [`name ${a.name} and ${b.name}`];
  return [...name, ...fields.map((key) => `${key} ${show(a.protocol[key])} and ${show(b.protocol[key])}`)];
}

/**
 * The places of scores, best first: [2, 0, 1] when the third is best.
 * @throws ProtocolError naming what differs where two of them were measured unlike each other
 */
export function rank(scores: readonly Score[]): number[] {
  for (const score of scores) {
    const differences = unlike(scores[0], score);
    if (differences.length > 0)
      throw new ProtocolError(`${score.name}: scores cannot be compared: ${differences.join(", ")}`);
  }
  const sign = scores[0]?.better === "higher" ? -1 : 1;
  return scores.map((_, i) => i).sort((i, j) => sign * (scores[i].value - scores[j].value) || i - j);
}

export interface Interval {
  readonly low: number;
  readonly high: number;
  readonly share: number;
  readonly rounds: number;
}

export interface BootstrapOptions {
  readonly seed: number;
  /** Resamples (default 200), and the share of them inside the interval (default 0.95). */
  readonly rounds?: number;
  readonly share?: number;
  /**
   * Moves the resamples so that their mean is `value`: for statistics that repeated rows push to one side, as they do the
   * Frechet distance, whose covariances they thin out.
   */
  readonly centre?: number;
  /** The least that the statistic can be: the interval, moved or not, does not reach below it. */
  readonly least?: number;
}

/**
 * Percentile interval of a statistic of `n` clips under drawing `n` of them with replacement (Efron 1979). Each call of
 * `draw` gives the places of another resample, so that two sets are drawn apart. Null for fewer than 2 clips.
 */
export function bootstrap(
  n: number,
  statistic: (draw: () => Int32Array) => number,
  { seed, rounds = 200, share = 0.95, centre, least = Number.NEGATIVE_INFINITY }: BootstrapOptions,
): Interval | null {
  if (n < 2) return null;
  const bits = bitsFrom(seed, "bootstrap");
  let drawn = 0;
  const draw = (): Int32Array => Int32Array.from({ length: n }, () => bits(drawn++) % n);
  const values = Float64Array.from({ length: rounds }, () => statistic(draw)).sort();
  const shift = centre === undefined ? 0 : centre - mean(values);
  const at = (q: number): number => Math.max(least, values[Math.round(q * (rounds - 1))] + shift);
  return { low: at((1 - share) / 2), high: at((1 + share) / 2), share, rounds };
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}
