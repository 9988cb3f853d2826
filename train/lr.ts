// Learning rate by step, on the host in float64 and fed to the compiled step.

export interface LrSchedule {
  readonly peak: number;
  /** Steps of linear rise; need not be whole. */
  readonly warmup: number;
  /** Total steps, at the end of which a cosine reaches `floor`; absent: constant after the warm-up. */
  readonly steps?: number;
  readonly floor?: number;
}

/** Rate of step 0, 1, ... : (step + 1) / warmup of the peak, never above it, then constant or half a cosine to the floor. */
export function learningRate({ peak, warmup, steps, floor = 0 }: LrSchedule, step: number): number {
  if (step < warmup) return peak * Math.min(1, (step + 1) / warmup);
  if (steps === undefined) return peak;
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  return floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * progress));
}
