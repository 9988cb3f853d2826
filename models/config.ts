// Sizes of the latent video diffusion systems: one configuration type, five presets. Spec sections 2 and 8: every preset has
// the topology of the paper's network; `paper` has its sizes. Counting parameters needs this file and the constructors only.

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

export interface StiConfig {
  readonly heads: number;
  readonly dim: number;
  /** Side of the average-pooling window before the attention (s in the paper). */
  readonly pool: number;
  /** GroupNorm on the output, as the authors added later; loses the identity start. */
  readonly outNorm: boolean;
}

export interface UNetConfig {
  readonly latent: number;
  /** Channels per level. Every level but the last has text attention. */
  readonly channels: readonly number[];
  /** Residual blocks per level going down; going up there is one more. */
  readonly layers: number;
  /** Features per attention head; heads = channels / headDim. */
  readonly headDim: number;
  /** Width of the text features. */
  readonly context: number;
  readonly groups: number;
  /** The temporal transformer behind the first convolution. */
  readonly transformerIn: { readonly heads: number; readonly dim: number };
  readonly dropout: number;
  /** Replaces every temporal convolution; null: plain temporal convolutions (Make-A-Video). */
  readonly sti: StiConfig | null;
}

export interface SystemConfig {
  readonly preset: Preset;
  /** Side of the square frames in pixels, and how many there are. */
  readonly size: number;
  readonly frames: number;
  readonly autoencoder: AutoencoderConfig;
  readonly text: TextConfig;
  readonly unet: UNetConfig;
  readonly prediction: "epsilon" | "v";
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
  },
};

/** The STI system at a preset; `over` replaces whole parts, e.g. `{ size: 48 }`. */
export function presetConfig(preset: Preset, over: Partial<SystemConfig> = {}): SystemConfig {
  const s = SIZES[preset];
  return {
    preset,
    size: s.size,
    frames: FRAMES,
    autoencoder: s.autoencoder,
    text: { ...s.text, width: s.context },
    unet: {
      latent: s.autoencoder.latent,
      channels: s.levels.map((m) => m * s.d0),
      layers: s.layers,
      headDim: s.headDim,
      context: s.context,
      groups: s.groups,
      transformerIn: { heads: 8, dim: s.temporalIn / 8 },
      dropout: preset === "paper" ? 0.1 : 0,
      sti: { heads: 8, dim: s.stiInner / 8, pool: 2, outNorm: false },
    },
    // v weighs the noisiest steps, where only the caption can help, more than epsilon does: short runs learn captions sooner.
    prediction: preset === "nano" ? "v" : "epsilon",
    ...over,
  };
}

/** Pixels per latent along one side. */
export function downsampling(config: AutoencoderConfig): number {
  return 2 ** (config.channels.length - 1);
}
