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
export { constantInit, fanInInit, type Initializer, normalInit, onesInit, zerosInit } from "./init.ts";
export {
  Attention,
  type AttentionLayerOptions,
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
} from "./layers.ts";
export { l1, mse } from "./losses.ts";
export { Module, parameter } from "./module.ts";
