// Public surface of nn: re-exports and nothing else.

export { constantInit, fanInInit, type Initializer, normalInit, onesInit, zerosInit } from "./init.ts";
export {
  Attention,
  type AttentionLayerOptions,
  Conv,
  type ConvLayerOptions,
  dropout,
  Embedding,
  GroupNorm,
  LayerNorm,
  Linear,
  type LinearOptions,
} from "./layers.ts";
export { l1, mse } from "./losses.ts";
export { Module, parameter } from "./module.ts";
