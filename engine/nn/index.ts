// Public surface of nn: re-exports and nothing else.

export {
  elu,
  geglu,
  geluTanh,
  glu,
  hardsigmoid,
  hardswish,
  hardtanh,
  leakyRelu,
  logSigmoid,
  mish,
  quickGelu,
  relu6,
  selu,
  softsign,
} from "./activations.ts";
export {
  type AttentionOptions,
  multiHeadAttention,
  type PackedWeights,
  scaledDotProductAttention,
} from "./attention.ts";
export {
  type GridSampleOptions,
  gridSample,
  pixelShuffle,
  pixelUnshuffle,
  type UnfoldOptions,
  unfold,
} from "./images.ts";
export {
  embedding,
  gather,
  indexAdd,
  indexSelect,
  maskedFill,
  oneHot,
  repeatInterleave,
  roll,
  scatter,
  scatterAdd,
  stack,
  tile,
  tril,
  triu,
} from "./indexing.ts";
export { constantInit, fanInInit, type Initializer, normalInit, onesInit, zerosInit } from "./init.ts";
export { type InterpolateMode, type InterpolateOptions, interpolate } from "./interpolate.ts";
export {
  Attention,
  type AttentionLayerOptions,
  BatchNorm,
  Conv,
  type ConvLayerOptions,
  ConvTranspose,
  type ConvTransposeLayerOptions,
  dropout,
  Embedding,
  GroupNorm,
  LayerNorm,
  Linear,
  type LinearOptions,
  RmsNorm,
} from "./layers.ts";
export {
  type BceOptions,
  bce,
  bceWithLogits,
  type ClassOptions,
  type CrossEntropyOptions,
  crossEntropy,
  huber,
  type KlOptions,
  kl,
  type LossOptions,
  l1,
  mse,
  nll,
  type Reduction,
  smoothL1,
} from "./losses.ts";
export { Module, parameter } from "./module.ts";
export {
  type BatchNormOptions,
  batchNorm,
  groupNorm,
  instanceNorm,
  l2Normalize,
  layerNorm,
  type NormOptions,
  type RunningStatistics,
  rmsNorm,
} from "./norms.ts";
export { type PadMode, pad } from "./padding.ts";
export {
  type AdaptiveSize,
  type AvgPoolOptions,
  adaptiveAvgPool,
  adaptiveMaxPool,
  adaptiveMaxPoolWithIndices,
  avgPool,
  type MaxPoolOptions,
  maxPool,
  maxPoolWithIndices,
  type Pooled,
  type PoolOptions,
} from "./pooling.ts";
export { baddbmm, linear } from "./products.ts";
export {
  all,
  any,
  argmax,
  argmin,
  cumprod,
  logSoftmax,
  logsumexp,
  maxAlong,
  minAlong,
  norm,
  prod,
  std,
  type ValuesAt,
  type VarianceOptions,
  variance,
} from "./reductions.ts";
export { type SortOptions, sort, type TopkOptions, topk } from "./sorting.ts";
