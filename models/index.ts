// Public surface of models (`gifgrad/models` in the package): re-exports and nothing else. Inside the project each file
// imports the one that it needs.

export { Autoencoder, type AutoencoderLoss, klDivergence, type Posterior, samplePosterior } from "./autoencoder.ts";
export { Clip, type ClipConfig } from "./clip.ts";
export {
  type AutoencoderConfig,
  DIFFUSION_SYSTEMS,
  type DiffusionSystem,
  downsampling,
  type ImageGuidanceConfig,
  PLAIN,
  PRESETS,
  type Preset,
  presetConfig,
  type StiConfig,
  type SwapConfig,
  type SystemConfig,
  type SystemName,
  systemConfig,
  type TextConfig,
  type UNetConfig,
} from "./config.ts";
export {
  denoise,
  guide,
  NoiseSchedule,
  type NoiseScheduleOptions,
  type Predict,
  type Prediction,
  type SampleLimit,
} from "./diffusion.ts";
export { ImageEncoder, type VisionConfig } from "./image_encoder.ts";
export {
  type Guidance,
  LatentDiffusion,
  type LossOptions,
  type Trained,
  type TrainingBatch,
} from "./latent_diffusion.ts";
export { TemporalConv, TemporalTransformer } from "./make_a_video.ts";
export { type Objective, Prior, type PriorConfig } from "./prior.ts";
export { choose, MaskedSampler, NextSampler } from "./prior_sampling.ts";
export {
  type PlannedStep,
  type PlanOptions,
  SAMPLERS,
  type SamplerName,
  type SamplerNumbers,
  type SamplerStep,
  type SamplingOptions,
  type SamplingProgress,
  sample,
  samplerStep,
} from "./samplers.ts";
export { SpatialTemporalInteraction } from "./sti.ts";
export { countParameters, countSystem, countSystems, SYSTEMS, type System, type SystemCount } from "./systems.ts";
export { TextEncoder, type TextOptions } from "./text_encoder.ts";
export { type ForwardOptions, VideoUNet, type VideoUNetOptions } from "./video_unet.ts";
export { SwapAttention } from "./videofactory.ts";
export { VideoGpt, type VideoGptConfig, videoGptConfig } from "./videogpt.ts";
export { MixedTemporalConv, MixedTemporalTransformer } from "./videoldm.ts";
export { VqVae, type VqVaeConfig, type VqVaeOutput } from "./vqvae.ts";
