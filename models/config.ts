// Sizes of the latent video diffusion systems: one configuration type, five systems, five presets, as plain data (run
// folders store it as JSON). Spec sections 2, 3 and 8: every preset has the topology of the paper's networks; `paper` has
// their sizes. What the temporal layers compute is in one file per system. VideoGPT, no diffusion, has its own sizes.

import type { NoiseScheduleOptions } from "./diffusion.ts";
import type { VisionConfig } from "./image_encoder.ts";

/** The six systems of the paper's Table 4. */
export type SystemName = "videogpt" | "make-a-video" | "videoldm" | "videofactory" | "i2vgen-xl" | "sti";
/** Those that denoise latents. */
export type DiffusionSystem = Exclude<SystemName, "videogpt">;
export const DIFFUSION_SYSTEMS = ["make-a-video", "videoldm", "videofactory", "i2vgen-xl", "sti"] as const;

export interface AutoencoderConfig {
  /** Channels per level; each level but the last halves the image: f = 2^(levels - 1). */
  readonly channels: readonly number[];
  /** Residual blocks per encoder level; the decoder has one more. */
  readonly layers: number;
  readonly latent: number;
  readonly groups: number;
}

export interface TextConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly mlp: number;
  /** Tokens of a caption, start and end included. */
  readonly length: number;
  /** Of the MLPs; absent: the exact GELU, which OpenCLIP and Stable Diffusion 2 have. OpenAI's models have "quick_gelu". */
  readonly activation?: Activation;
  /** Added to the variance by the layer norms; absent: 1e-5. */
  readonly epsilon?: number;
  /** Layers at the end that are loaded but not used, the final norm is. I2VGen-XL has 24 layers and skips one; absent: 0. */
  readonly skip?: number;
  /** Width of the space that captions share with images, where the encoder has a projection into it. */
  readonly projection?: number;
  /** Id of the token that ends a caption and stands for it; absent: the highest id of the caption, which is OpenAI's rule. */
  readonly endId?: number;
}

/** Names as in the configurations that transformers writes: the exact GELU, x sigmoid(1.702 x), the one with tanh. */
export type Activation = "gelu" | "quick_gelu" | "gelu_new" | "gelu_pytorch_tanh" | "relu" | "silu";

/** Spatial Temporal Interaction (sti.ts). */
export interface StiConfig {
  readonly heads: number;
  readonly dim: number;
  /** Side of the average-pooling window before the attention (s in the paper); 1: no pooling. */
  readonly pool: number;
  /** GroupNorm on the output, as the authors added later; loses the identity start. */
  readonly outNorm: boolean;
  /** Frames that the small detail branch of the authors' later network is made for; absent: temporal convolutions. */
  readonly light?: { readonly frames: number };
  /** A third weight, on x itself: a variant in the authors' files. */
  readonly third?: boolean;
}

/** Swapped attention between spatial and temporal features (videofactory.ts). */
export interface SwapConfig {
  /** Frames, rows and columns of a window. */
  readonly window: readonly [number, number, number];
  /**
   * null: one head, queries and keys C / 8 wide, in every stage (the paper's Table 4 count agrees best with it). Otherwise
   * multi-head attention in the stages that read text: the layer as VideoFactory's own paper draws it.
   */
  readonly heads: { readonly count: number; readonly dim: number } | null;
}

/** Image guidance (i2vgen_xl.ts). */
export interface ImageGuidanceConfig {
  /** Side that the guiding picture's features are pooled to; (side / 4)^2 tokens join those of the text. */
  readonly side: number;
  /** Width of the one vector that says what the picture shows, and how many more tokens are made of it. */
  readonly embedding: number;
  readonly tokens: number;
  /** What the picture's features are multiplied by before they join the latents; absent: 1. The authors' code has 2. */
  readonly gain?: number;
}

export interface UNetConfig {
  readonly latent: number;
  /** Channels that the first convolution reads; absent: those of the latents. */
  readonly inputs?: number;
  /** Channels per level. */
  readonly channels: readonly number[];
  /** Levels with text attention; absent: all but the last. The middle always has it. */
  readonly attended?: readonly boolean[];
  /** Residual blocks per level going down; going up there is one more. */
  readonly layers: number;
  /** Features per attention head. */
  readonly headDim: number;
  /** Heads per level, where a file says so; absent: channels / headDim. The last one counts in the middle. */
  readonly heads?: readonly number[];
  /** Width of the text features. */
  readonly context: number;
  readonly groups: number;
  /** The temporal transformer behind the first convolution. */
  readonly transformerIn: { readonly heads: number; readonly dim: number };
  readonly dropout: number;
  /** false: the per-frame network alone, which is an image model. */
  readonly temporal?: boolean;
  // What a system does to the temporal layers; all null or false: Make-A-Video, where each is a plain residual sum.
  /** STI in the place of every temporal convolution. */
  readonly sti: StiConfig | null;
  /** VideoLDM: a learned number per temporal layer mixes it with the per-frame network. */
  readonly mixing: boolean;
  /** VideoFactory: attention between the features before and behind the temporal convolutions. */
  readonly swap: SwapConfig | null;
  /** I2VGen-XL: a picture beside the caption. */
  readonly image: ImageGuidanceConfig | null;
}

/** A noise schedule by name, which JSON holds; its number of steps is the same for all systems. */
export type ScheduleConfig = Pick<NoiseScheduleOptions, "range" | "zeroTerminalSnr"> & {
  readonly betas: Extract<NoiseScheduleOptions["betas"], string>;
};

export interface SystemConfig {
  readonly system: DiffusionSystem;
  readonly preset: Preset;
  /** Side of the square frames in pixels, and how many there are. */
  readonly size: number;
  readonly frames: number;
  readonly autoencoder: AutoencoderConfig;
  readonly text: TextConfig;
  readonly unet: UNetConfig;
  /** Of I2VGen-XL: makes the one vector of a guiding picture; absent: a thumbnail of its latents stands for it. */
  readonly imageEncoder?: VisionConfig;
  /** I2VGen-XL: training shows it the first frame of each sticker; absent: text only, as the paper compares it. */
  readonly pictures?: boolean;
  readonly prediction: "epsilon" | "v";
  /** Of an imported model, and of one that began as such; absent: Stable Diffusion's, as in the paper. */
  readonly schedule?: ScheduleConfig;
}

export type Preset = "nano" | "micro" | "tiny" | "small" | "paper";
export const PRESETS: readonly Preset[] = ["nano", "micro", "tiny", "small", "paper"];

interface Sizes {
  readonly size: number;
  readonly d0: number;
  /** Multiples of d0 per level. */
  readonly levels: readonly number[];
  readonly layers: number;
  readonly groups: number;
  readonly headDim: number;
  readonly context: number;
  /** Inner width of transformer_in and of STI, each of 8 heads. */
  readonly temporalIn: number;
  readonly stiInner: number;
  readonly autoencoder: AutoencoderConfig;
  readonly text: Omit<TextConfig, "width">;
  /** What I2VGen-XL loads besides: one more layer of text, unused, and an image encoder. */
  readonly guided?: { readonly text: Partial<TextConfig>; readonly imageEncoder: VisionConfig };
}

const FRAMES = 8;
const CAPTION = 77;

// Scaled presets follow spec section 8: dims d0 (1, 2, 4, 4), context 4 d0, head dim d0 / 2, inner widths d0. nano is for
// tests and the demonstration: two levels, one block each.
const SIZES: Readonly<Record<Preset, Sizes>> = {
  nano: {
    size: 16,
    d0: 32,
    levels: [1, 2],
    layers: 1,
    groups: 8,
    headDim: 16,
    context: 64,
    temporalIn: 32,
    stiInner: 32,
    autoencoder: { channels: [16, 32, 32], layers: 1, latent: 4, groups: 4 },
    text: { vocabulary: 1024, layers: 2, heads: 4, mlp: 256, length: 32 },
  },
  micro: {
    size: 64,
    d0: 32,
    levels: [1, 2, 4, 4],
    layers: 2,
    groups: 8,
    headDim: 16,
    context: 128,
    temporalIn: 32,
    stiInner: 32,
    autoencoder: { channels: [32, 64, 64], layers: 1, latent: 4, groups: 8 },
    text: { vocabulary: 8192, layers: 4, heads: 4, mlp: 512, length: CAPTION },
  },
  tiny: {
    size: 128,
    d0: 64,
    levels: [1, 2, 4, 4],
    layers: 2,
    groups: 16,
    headDim: 32,
    context: 256,
    temporalIn: 64,
    stiInner: 64,
    autoencoder: { channels: [32, 64, 128, 128], layers: 1, latent: 4, groups: 16 },
    text: { vocabulary: 16384, layers: 6, heads: 8, mlp: 1024, length: CAPTION },
  },
  small: {
    size: 256,
    d0: 128,
    levels: [1, 2, 4, 4],
    layers: 2,
    groups: 32,
    headDim: 64,
    context: 512,
    temporalIn: 128,
    stiInner: 128,
    autoencoder: { channels: [64, 128, 256, 256], layers: 2, latent: 4, groups: 32 },
    text: { vocabulary: 16384, layers: 12, heads: 8, mlp: 2048, length: CAPTION },
  },
  paper: {
    size: 256,
    d0: 320,
    levels: [1, 2, 4, 4],
    layers: 2,
    groups: 32,
    headDim: 64,
    context: 1024,
    temporalIn: 512,
    stiInner: 256,
    autoencoder: { channels: [128, 256, 512, 512], layers: 2, latent: 4, groups: 32 },
    text: { vocabulary: 49408, layers: 23, heads: 16, mlp: 4096, length: CAPTION },
    guided: {
      text: { layers: 24, skip: 1 },
      imageEncoder: { size: 224, patch: 14, width: 1280, layers: 32, heads: 16, mlp: 5120, projection: 1024 },
    },
  },
};

/** Side of the thumbnail of latents that stands for a picture where there is no image encoder. */
export const THUMBNAIL = 4;

/** Temporal layers of Make-A-Video: nothing of what the other systems add. */
export const PLAIN = { sti: null, mixing: false, swap: null, image: null } as const;

const TEMPORAL: Readonly<Record<DiffusionSystem, (s: Sizes) => Partial<UNetConfig>>> = {
  "make-a-video": () => ({}),
  videoldm: () => ({ mixing: true }),
  videofactory: () => ({ swap: { window: [8, 8, 8], heads: null } }),
  "i2vgen-xl": ({ size, autoencoder, guided }) => ({
    inputs: 2 * autoencoder.latent,
    image: {
      side: size / downsampling(autoencoder),
      embedding: guided?.imageEncoder.projection ?? THUMBNAIL ** 2 * autoencoder.latent,
      tokens: 4,
    },
  }),
  sti: ({ stiInner }) => ({ sti: { heads: 8, dim: stiInner / 8, pool: 2, outNorm: false } }),
};

/** A system at a preset; `over` replaces whole parts, e.g. `{ size: 48 }`. */
export function systemConfig(system: DiffusionSystem, preset: Preset, over: Partial<SystemConfig> = {}): SystemConfig {
  const s = SIZES[preset];
  const guided = system === "i2vgen-xl" ? s.guided : undefined;
  return {
    system,
    preset,
    size: s.size,
    frames: FRAMES,
    autoencoder: s.autoencoder,
    text: { ...s.text, width: s.context, ...guided?.text },
    ...(guided && { imageEncoder: guided.imageEncoder }),
    unet: {
      latent: s.autoencoder.latent,
      channels: s.levels.map((m) => m * s.d0),
      layers: s.layers,
      headDim: s.headDim,
      context: s.context,
      groups: s.groups,
      transformerIn: { heads: 8, dim: s.temporalIn / 8 },
      dropout: preset === "paper" ? 0.1 : 0,
      ...PLAIN,
      ...TEMPORAL[system](s),
    },
    // v weighs the noisiest steps, where only the caption can help, more than epsilon does: short runs learn captions sooner.
    prediction: preset === "nano" ? "v" : "epsilon",
    ...over,
  };
}

/** The STI system at a preset. */
export function presetConfig(preset: Preset, over: Partial<SystemConfig> = {}): SystemConfig {
  return systemConfig("sti", preset, over);
}

/** Pixels per latent along one side. */
export function downsampling(config: AutoencoderConfig): number {
  return 2 ** (config.channels.length - 1);
}
