// What every recipe returns and the one guard they share. A recipe's loop is in its own file, whole.

/** How a training stage ended, for run.json and the report. */
export interface StageResult {
  readonly steps: number;
  readonly seconds: number;
  /** Mean loss of the first and of the last tenth of the steps (at most 50 of them). */
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Loss of predicting the mean: what a model that has learned nothing scores. */
  readonly baseline: number;
  /** Of the final checkpoint; null when the run was interrupted. */
  readonly sha256: string | null;
  readonly losses: readonly { readonly step: number; readonly loss: number }[];
}

/** Thrown when a loss is not a number any more. */
export class TrainingError extends Error {
  override name = "TrainingError";
}

/** Stops a run whose loss is NaN or infinite, naming the step, the last good checkpoint and the usual causes. */
export function checkFinite(loss: number, step: number, dir: string, lastSaved: number): void {
  if (Number.isFinite(loss)) return;
  const saved = lastSaved > 0 ? `the last good checkpoint is step ${lastSaved} in ${dir}` : `no checkpoint was saved in ${dir} yet`;
  throw new TrainingError(
    `loss is ${loss} at step ${step}; ${saved}. Usual causes: the learning rate is too high (halve --lr), the batch is too small, or the data holds broken images`,
  );
}

/** Mean of the first or last tenth of the losses, at least one and at most 50. */
export function tenth(losses: readonly { readonly loss: number }[], end: "first" | "last"): number {
  const n = Math.max(1, Math.min(50, Math.floor(losses.length / 10)));
  const part = end === "first" ? losses.slice(0, n) : losses.slice(-n);
  return part.reduce((sum, l) => sum + l.loss, 0) / part.length;
}
