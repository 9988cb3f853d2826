// Public surface of optim: re-exports and nothing else.

export { Adam, type AdamOptions, AdamW, type AdamWOptions } from "./adam.ts";
export { clipGradNorm, clipGradValue, globalNorm } from "./clip.ts";
export { Ema } from "./ema.ts";
export { inHalf, LossScaler, type LossScalerOptions } from "./mixed_precision.ts";
export { Optimizer, type OptimizerOptions, type ParameterGroup, type UpdateOptions } from "./optimizer.ts";
export {
  constant,
  cosine,
  exponential,
  type LrSchedule,
  linearWarmup,
  oneCycle,
  polynomial,
  stepDecay,
  warmupCosine,
} from "./schedule.ts";
export { Sgd, type SgdOptions } from "./sgd.ts";
