// Learning-rate schedules: pure functions of the step, in float64 on the host. Feed their value to the compiled step:
// `train({ ..., lr: rate(k) })`. Steps count from 0; a schedule keeps its last value after its end.

/** Rate of step 0, 1, ... */
export type LrSchedule = (step: number) => number;

export function constant(lr: number): LrSchedule {
  return () => lr;
}

/**
 * Rises linearly to `then(0)` over `steps` steps (need not be whole), then follows `then`. The first step has 1 / steps of
 * it; with `fromZero` it has nothing, and step k has k / steps.
 */
export function linearWarmup(steps: number, then: LrSchedule, o: { readonly fromZero?: boolean } = {}): LrSchedule {
  const ahead = o.fromZero ? 0 : 1;
  return (k) => (k < steps ? then(0) * Math.min(1, (k + ahead) / steps) : then(k - steps));
}

export interface DecayOptions {
  readonly lr: number;
  /** After this many steps the rate is `floor`. */
  readonly steps: number;
  readonly floor?: number;
}

/** Half a cosine from `lr` to `floor` (Loshchilov & Hutter 2017, equation 5; torch's CosineAnnealingLR). */
export function cosine({ lr, steps, floor = 0 }: DecayOptions): LrSchedule {
  return (k) => floor + (lr - floor) * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, k / steps)));
}

export interface WarmupCosineOptions extends DecayOptions {
  /** Steps of linear rise, counted in `steps`; need not be whole. */
  readonly warmup: number;
  readonly fromZero?: boolean;
}

/** Linear rise, then half a cosine that reaches `floor` at `steps`. */
export function warmupCosine({ lr, warmup, steps, floor, fromZero }: WarmupCosineOptions): LrSchedule {
  return linearWarmup(warmup, cosine({ lr, steps: Math.max(1, steps - warmup), floor }), { fromZero });
}

/** From `lr` to `floor` as (1 - k / steps)^power; power 1 is a straight line. */
export function polynomial({
  lr,
  steps,
  floor = 0,
  power = 1,
}: DecayOptions & { readonly power?: number }): LrSchedule {
  return (k) => floor + (lr - floor) * (1 - Math.min(1, k / steps)) ** power;
}

/** lr factor^floor(k / every): a fall by `factor` every so many steps (torch's StepLR). */
export function stepDecay({ lr, every, factor }: { lr: number; every: number; factor: number }): LrSchedule {
  return (k) => lr * factor ** Math.floor(k / every);
}

/** lr factor^k */
export function exponential({ lr, factor }: { lr: number; factor: number }): LrSchedule {
  return (k) => lr * factor ** k;
}

export interface OneCycleOptions {
  /** The largest rate. */
  readonly lr: number;
  readonly steps: number;
  /** Share of the steps that rise. */
  readonly rise?: number;
  /** The first rate is lr / start, the last lr / (start end). */
  readonly start?: number;
  readonly end?: number;
}

/** Half a cosine up and half a cosine down to far below the start (Smith & Topin 2019; torch's OneCycleLR). */
export function oneCycle({ lr, steps, rise = 0.3, start = 25, end = 1e4 }: OneCycleOptions): LrSchedule {
  const [top, last] = [rise * steps - 1, steps - 1];
  const between = (a: number, b: number, x: number): number => b + ((a - b) / 2) * (1 + Math.cos(Math.PI * x));
  return (k) =>
    k <= top
      ? between(lr / start, lr, top > 0 ? k / top : 1)
      : between(lr, lr / (start * end), Math.min(1, (k - top) / (last - top)));
}
