// The networks that checkpoints of other programs hold, as a table: where a pipeline's folder has each, how its configuration
// becomes ours, which module it is here, and how its files are laid out. What belongs to a whole checkpoint (`--as sd21`) is
// the second table. Pure: files are opened by train/foreign/.

import type { TensorFile } from "../../engine/index.ts";
import type { Module } from "../../engine/nn/index.ts";
import { Autoencoder } from "../autoencoder.ts";
import { Clip, type ClipConfig } from "../clip.ts";
import { type AutoencoderConfig, systemConfig, type TextConfig } from "../config.ts";
import { I2VGenXLUNet } from "../i2vgen_xl.ts";
import { ImageEncoder, type VisionConfig } from "../image_encoder.ts";
import { TextEncoder } from "../text_encoder.ts";
import { VideoUNet } from "../video_unet.ts";
import { VideoGpt, type VideoGptConfig } from "../videogpt.ts";
import {
  OPENAI,
  openaiClipConfig,
  readClipConfig,
  readOpenClipConfig,
  readTextConfig,
  readVisionConfig,
} from "./clip.ts";
import { openaiLayout, openaiNames, transformersLayout } from "./clip_names.ts";
import { byRules, type Layout } from "./layout.ts";
import { isOriginal, originalTextLayout, originalUNetLayout, originalVaeLayout } from "./original.ts";
import { ConfigError, ConfigReader } from "./reader.ts";
import { readI2VGenXL, readUNetConfig, type UNetDescription } from "./unet.ts";
import { readVaeConfig, vaeLayout } from "./vae.ts";
import { VGEN_GAIN, vgenLayout } from "./vgen.ts";
import { readVideoGptConfig, videoGptLayout, writeVideoGptConfig } from "./videogpt.ts";
import { writeClipConfig, writeTextConfig, writeUNetConfig, writeVaeConfig, writeVisionConfig } from "./write.ts";

type Tensors = TensorFile["tensors"];

/** One network of a checkpoint. Its configurations are plain data, in a shape that only the part itself knows. */
export interface Part {
  /** Base name of its weights in a pipeline's folder. */
  readonly weights: "diffusion_pytorch_model" | "model";
  /**
   * Our configuration of what a file describes. `json` is null where a file of weights comes alone: then sizes are those of
   * the published model, or read off the tensors. Throws ConfigError for a network that is not here.
   */
  read(json: unknown, label: string, tensors: Tensors): object;
  /** config.json of the library that the layout is of. Throws ConfigError for what it has no words for. */
  write(config: object): object;
  /** Allocates no weights. */
  build(config: object): Module;
  /** How a file with these names is laid out. */
  layout(names: readonly string[], config: object): Layout;
}

interface Typed<C extends object> extends Part {
  read(json: unknown, label: string, tensors: Tensors): C;
  write(config: C): object;
  build(config: C): Module;
  layout(names: readonly string[], config: C): Layout;
}

/** A configuration only ever comes back to the part that made it. */
const part = <C extends object>(typed: Typed<C>): Part => typed;

const same = byRules([]);
const vgenNamed = (names: readonly string[]): boolean => names.some((name) => /^input_blocks\./.test(name));

const published = systemConfig("make-a-video", "paper");
const TEXT = { ...published.text, epsilon: 1e-5 };
const guided = systemConfig("i2vgen-xl", "paper").unet;

function unetPart(read: (json: unknown, label: string) => UNetDescription, unsaid: UNetDescription): Part {
  return part<UNetDescription>({
    weights: "diffusion_pytorch_model",
    read: (json, label, tensors) => {
      const found = json === null ? unsaid : read(json, label);
      const { image } = found.config;
      if (!image || !vgenNamed([...tensors.keys()])) return found;
      return { ...found, config: { ...found.config, image: { ...image, gain: VGEN_GAIN } } };
    },
    write: writeUNetConfig,
    build: ({ config, temporal }) => (config.image ? new I2VGenXLUNet(config) : new VideoUNet(config, { temporal })),
    layout(names, description) {
      const ours = (): Iterable<string> => this.build(description).state().keys();
      if (isOriginal(names)) return originalUNetLayout(ours(), description.config);
      return vgenNamed(names) ? vgenLayout(ours(), description.config) : same;
    },
  });
}

/** Refuses a network of images where one of videos is expected, and the other way round. */
function only(temporal: boolean, as: string) {
  return (json: unknown, label: string): UNetDescription => {
    const found = readUNetConfig(json, label);
    if (found.temporal === temporal) return found;
    throw new ConfigError(
      `${label}: a UNet of ${temporal ? "images, not of videos" : "videos, not of images"}: not ${as}`,
    );
  };
}

const vae = part<{ config: AutoencoderConfig; scale: number }>({
  weights: "diffusion_pytorch_model",
  read: (json, label) =>
    json === null ? { config: published.autoencoder, scale: 0.18215 } : readVaeConfig(json, label),
  write: writeVaeConfig,
  build: ({ config, scale }) => new Autoencoder(config, scale),
  layout: (names, { config }) => (isOriginal(names) ? originalVaeLayout(config.channels.length) : vaeLayout),
});

const textEncoder = (skip: number): Part =>
  part<TextConfig>({
    weights: "model",
    read: (json, label) => (json === null ? TEXT : { ...readTextConfig(json, label), ...(skip > 0 ? { skip } : {}) }),
    write: writeTextConfig,
    build: (config) => new TextEncoder(config),
    layout: (names, { layers }) => (isOriginal(names) ? originalTextLayout(names, layers) : transformersLayout),
  });

const imageEncoder = part<VisionConfig>({
  weights: "model",
  read: (json, label) => readVisionConfig(json ?? {}, label),
  write: writeVisionConfig,
  build: (config) => new ImageEncoder(config),
  layout: () => transformersLayout,
});

const clip = part<ClipConfig>({
  weights: "model",
  read: (json, label, tensors) => {
    const names = openaiNames(tensors.keys());
    if (json !== null && new ConfigReader(json, label).has("model_type")) return readClipConfig(json, label);
    if (!names) throw new ConfigError(`${label}: neither a config.json of transformers nor OpenAI's names of weights`);
    const shapes = new Map([...names].map(([full, name]) => [name, tensors.get(full)?.shape ?? []] as const));
    return openaiClipConfig(shapes, json === null ? OPENAI : readOpenClipConfig(json, label));
  },
  write: writeClipConfig,
  build: (config) => new Clip(config),
  layout: (names) => openaiLayout(names) ?? transformersLayout,
});

const videogpt = part<VideoGptConfig>({
  weights: "model",
  read: (json, label) => readVideoGptConfig(json ?? {}, label),
  write: writeVideoGptConfig,
  build: (config) => new VideoGpt(config),
  layout: () => videoGptLayout,
});

const image: UNetDescription = { sample: 96, config: { ...published.unet, dropout: 0 }, temporal: false };
const video: UNetDescription = { sample: 32, config: published.unet, temporal: true };
const pictured: UNetDescription = { sample: 32, config: guided, temporal: true };

export type PartName = "unet" | "vae" | "text_encoder" | "image_encoder" | "clip" | "videogpt";
type Parts = Readonly<Partial<Record<PartName, Part>>>;

export type CheckpointKind = "sd21" | "text-to-video-ms" | "i2vgen-xl" | "clip" | "videogpt";

/** What belongs to a checkpoint, by the names of a pipeline's folders. */
export const CHECKPOINTS: Readonly<Record<CheckpointKind, Parts>> = {
  sd21: { unet: unetPart(only(false, "sd21"), image), vae, text_encoder: textEncoder(0) },
  "text-to-video-ms": { unet: unetPart(only(true, "text-to-video-ms"), video), vae, text_encoder: textEncoder(0) },
  "i2vgen-xl": {
    unet: unetPart(readI2VGenXL, pictured),
    vae,
    text_encoder: textEncoder(1),
    image_encoder: imageEncoder,
  },
  clip: { clip },
  videogpt: { videogpt },
};
