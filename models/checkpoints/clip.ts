// CLIP's configuration in the files of others: config.json of transformers (both towers, or one), open_clip_config.json, and
// OpenAI's files, which have none, so that sizes are read off the weights. Weight names are clip_names.ts.

import type { Shape } from "../../engine/index.ts";
import type { ClipConfig } from "../clip.ts";
import { ACTIVATIONS } from "../clip_layers.ts";
import type { Activation, TextConfig } from "../config.ts";
import type { VisionConfig } from "../image_encoder.ts";
import { ConfigReader } from "./reader.ts";

/** config.json of a `CLIPModel`. Throws ConfigError for what is not supported. */
export function readClipConfig(json: unknown, label: string): ClipConfig {
  const r = new ConfigReader(json, label);
  r.only("model_type", "clip");
  const projection = r.count("projection_dim", 512);
  return {
    text: { ...textConfig(r.inside("text_config")), projection },
    vision: { ...visionConfig(r.inside("vision_config")), projection },
  };
}

/** config.json of a `CLIPTextModel`; with a projection where the file is of a `CLIPTextModelWithProjection`. */
export function readTextConfig(json: unknown, label: string): TextConfig {
  const r = new ConfigReader(json, label);
  r.only("model_type", "clip_text_model");
  return { ...textConfig(r), ...projection(r, "CLIPTextModelWithProjection") };
}

/** config.json of a `CLIPVisionModelWithProjection` (I2VGen-XL's image encoder), or of a `CLIPVisionModel` without one. */
export function readVisionConfig(json: unknown, label: string): VisionConfig {
  const r = new ConfigReader(json, label);
  r.only("model_type", "clip_vision_model");
  return { ...visionConfig(r), ...projection(r, "CLIPVisionModelWithProjection") };
}

/** Both kinds of model write `projection_dim`; only one of them has the weight. */
function projection(r: ConfigReader, architecture: string): { projection?: number } {
  const projects = r.has("architectures") && r.texts("architectures").includes(architecture);
  return projects ? { projection: r.count("projection_dim", 512) } : {};
}

/** Fields that a file leaves out have the defaults of transformers. */
function textConfig(r: ConfigReader): TextConfig {
  // Files from before 2023 name an end token of 2, which no tokenizer of CLIP has: there the highest id counts.
  const end = r.number("eos_token_id", 2);
  return {
    vocabulary: r.count("vocab_size", 49408),
    width: r.count("hidden_size", 512),
    layers: r.depth("num_hidden_layers", 12),
    heads: r.count("num_attention_heads", 8),
    mlp: r.count("intermediate_size", 2048),
    length: r.count("max_position_embeddings", 77),
    activation: activation(r),
    epsilon: r.number("layer_norm_eps", 1e-5),
    ...(end === 2 ? {} : { endId: end }),
  };
}

function visionConfig(r: ConfigReader): VisionConfig {
  return {
    width: r.count("hidden_size", 768),
    layers: r.depth("num_hidden_layers", 12),
    heads: r.count("num_attention_heads", 12),
    mlp: r.count("intermediate_size", 3072),
    size: r.count("image_size", 224),
    patch: r.count("patch_size", 32),
    inputs: r.count("num_channels", 3),
    activation: activation(r),
    epsilon: r.number("layer_norm_eps", 1e-5),
  };
}

function activation(r: ConfigReader): Activation {
  const name = r.text("hidden_act", "quick_gelu");
  if (Object.hasOwn(ACTIVATIONS, name)) return name as Activation;
  return r.refuse("hidden_act", `only ${Object.keys(ACTIVATIONS).join(", ")} are supported`);
}

/** What the shapes of OpenAI's and open_clip's weights leave open. */
export interface Unsaid {
  readonly activation: Activation;
  /** Features per head of the text tower and of the image tower. */
  readonly headWidth: { readonly text: number; readonly vision: number };
}

/** OpenAI's own models. */
export const OPENAI: Unsaid = { activation: "quick_gelu", headWidth: { text: 64, vision: 64 } };

/** open_clip_config.json, or the `model_cfg` of one. */
export function readOpenClipConfig(json: unknown, label: string): Unsaid {
  const outer = new ConfigReader(json, label);
  const r = outer.has("model_cfg") ? outer.inside("model_cfg") : outer;
  const [text, vision] = [r.inside("text_cfg"), r.inside("vision_cfg")];
  for (const key of ["hf_model_name", "hf_tokenizer_name"])
    if (text.has(key)) text.refuse(key, "only CLIP's own text tower is supported");
  for (const key of ["timm_model_name", "attentional_pool"])
    if (vision.has(key)) vision.refuse(key, "only a vision transformer with a class token is supported");
  return {
    activation: r.flag("quick_gelu", false) ? "quick_gelu" : "gelu",
    headWidth: {
      text: text.count("width", 512) / text.count("heads", 8),
      vision: vision.count("head_width", 64),
    },
  };
}

/**
 * Sizes from the weights' shapes, by their names in OpenAI's layout (`openaiNames` of clip_names.ts takes prefixes away).
 * Throws one line that names the tensor when it is missing or of another rank: the towers of ResNets have no patches.
 */
export function openaiClipConfig(shapes: ReadonlyMap<string, Shape>, unsaid: Unsaid = OPENAI): ClipConfig {
  const of = (name: string, rank: number): Shape => {
    const shape = shapes.get(name);
    if (shape?.length === rank) return shape;
    const found = shape ? `[${shape}]` : "missing";
    throw new Error(`CLIP with a vision transformer, as OpenAI names its weights: ${name} is ${found}`);
  };
  const layers = (path: string): number =>
    [...shapes.keys()].filter((name) => name.startsWith(path) && name.endsWith(".ln_1.weight")).length;
  const mlp = (path: string): number => of(`${path}0.mlp.c_fc.weight`, 2)[0];
  const [visionBlocks, textBlocks] = ["visual.transformer.resblocks.", "transformer.resblocks."];
  const [visionWidth, inputs, patch] = of("visual.conv1.weight", 4);
  const [patches] = of("visual.positional_embedding", 2);
  const [vocabulary, width] = of("token_embedding.weight", 2);
  const { activation, headWidth } = unsaid;
  return {
    text: {
      vocabulary,
      width,
      layers: layers(textBlocks),
      heads: width / headWidth.text,
      mlp: mlp(textBlocks),
      length: of("positional_embedding", 2)[0],
      activation,
      projection: of("text_projection", 2)[1],
    },
    vision: {
      width: visionWidth,
      layers: layers(visionBlocks),
      heads: visionWidth / headWidth.vision,
      mlp: mlp(visionBlocks),
      size: Math.round(Math.sqrt(patches - 1)) * patch,
      patch,
      inputs,
      activation,
      projection: of("visual.proj", 2)[1],
    },
  };
}
