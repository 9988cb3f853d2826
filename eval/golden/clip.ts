// Golden kinds "clip-text" (transformers' CLIPTextModel), "clip" (its CLIPModel) and "clip-openai" (the same network in
// OpenAI's layout). Sizes come from config.json, or from the weights where that is how users' files come.

import { join } from "node:path";
import { l2Normalize } from "../../engine/nn/index.ts";
import { openSafetensors } from "../../engine/safetensors.ts";
import type { Shape } from "../../engine/shape.ts";
import type { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { openaiClipConfig, readClipConfig, readTextConfig } from "../../models/checkpoints/clip.ts";
import { openaiLayout, openaiNames, transformersLayout } from "../../models/checkpoints/clip_names.ts";
import type { Layout } from "../../models/checkpoints/layout.ts";
import { Clip } from "../../models/clip.ts";
import { TextEncoder } from "../../models/text_encoder.ts";
import { need } from "./files.ts";
import type { Check, Kind } from "./kind.ts";
import { type ModelFolder, type Network, openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const clipText: Kind = {
  name: "clip-text",
  recognises: async (folder) => (await peekConfig(folder))?.model_type === "clip_text_model",
  async *run(path): AsyncGenerator<Check> {
    const folder = await openModelFolder(path);
    const model = new TextEncoder(readTextConfig(await folder.json("config.json"), "config.json"));
    await folder.load(model.state(), transformersLayout);
    const inputs = inputsOf(folder, { ids: "input_ids", mask: "attention_mask", short: "short_ids" });
    yield* folder.checks({ weights: model.state(), inputs, outputs: (x) => textOutputs(model, x) });
  },
};

/** Those of the named inputs that the folder has. */
function inputsOf(folder: ModelFolder, names: Readonly<Record<string, string>>): Tensors {
  const there = Object.entries(names).filter(([, name]) => folder.io.has(`in.${name}`));
  return Object.fromEntries(there.map(([key, name]) => [key, folder.input(name)]));
}

function textOutputs(model: TextEncoder, { ids, mask, short }: Tensors): Tensors {
  const last = model.forward(ids);
  const masked = (m: Tensor): Tensor => model.forward(ids, { mask: m }).mul(m.cast("f32").reshape([...m.shape, 1]));
  return {
    last_hidden_state: last,
    pooled: model.pooled(last, ids),
    ...(model.textProjection ? { text_embeds: model.embed(ids) } : {}),
    penultimate_hidden: model.hidden(ids, model.config.layers - 1),
    ...(mask ? { masked_last_hidden_state: masked(mask) } : {}),
    ...(short ? { short_last_hidden_state: model.forward(short) } : {}),
  };
}

export const clip: Kind = {
  name: "clip",
  recognises: async (folder) => (await peekConfig(folder))?.model_type === "clip",
  async *run(path): AsyncGenerator<Check> {
    const folder = await openModelFolder(path);
    const model = new Clip(readClipConfig(await folder.json("config.json"), "config.json"));
    await folder.load(model.state(), transformersLayout);
    const inputs = inputsOf(folder, { pixel_values: "pixel_values", ids: "input_ids", mask: "attention_mask" });
    const network = { weights: model.state(), inputs, outputs: (x: Tensors) => clipOutputs(model, x) };
    const bounds: Record<string, number> = folder.io.has(CLIPSIM)
      ? { [CLIPSIM]: await clipsimBound(folder, model) }
      : {};
    yield* folder.checks(network, { bounds });
  },
};

/** Not in tolerance.json: logits of caption 0 over their factor, so they may be as far off as logits over that factor. */
const CLIPSIM = "out.clipsim_frames_text0";
async function clipsimBound(folder: ModelFolder, model: Clip): Promise<number> {
  const largest = (name: string): number =>
    need(folder.io, name).data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const factor = Math.exp(await model.logitScale.item());
  return (folder.bound("out.logits_per_image") * largest("out.logits_per_image")) / (factor * largest(CLIPSIM));
}

function clipOutputs(model: Clip, { pixel_values, ids, mask }: Tensors): Tensors {
  const tokens = model.image.forward(pixel_values);
  const pooled = model.image.pooled(tokens);
  const images = l2Normalize(model.visualProjection.forward(pooled));
  const captions = model.embedText(ids, { mask });
  return {
    image_embeds: images,
    text_embeds: captions,
    logits_per_image: model.logits(images, captions),
    vision_last_hidden_state: tokens,
    vision_pooled: pooled,
    clipsim_frames_text0: images.mul(captions.slice(0, 0, 1)).sum(-1),
  };
}

export const clipOpenai: Kind = {
  name: "clip-openai",
  recognises: async (folder) => typeof (await peekConfig(folder))?.vision_patch_size === "number",
  async *run(path): AsyncGenerator<Check> {
    const folder = await openModelFolder(path);
    const { names, shapes } = await weightsOf(path);
    const layout = openaiLayout(names);
    if (!layout) throw new Error("weights.safetensors: its tensors are not named as OpenAI names CLIP's");
    const model = new Clip(openaiClipConfig(shapes));
    await folder.load(model.state(), layout);
    const inputs = inputsOf(folder, { image: "image", text: "text" });
    yield* folder.checks({ ...packed(model, names, layout), inputs, outputs: (x) => openaiOutputs(model, x) });
  },
};

/** The weights' names in the file, and shapes by their names less what stands before them. */
async function weightsOf(path: string): Promise<{ names: string[]; shapes: Map<string, Shape> }> {
  const { tensors } = await openSafetensors(join(path, "weights.safetensors")).then(async (file) => {
    await file.close();
    return file;
  });
  const short = [...(openaiNames(tensors.keys()) ?? [])];
  return { names: [...tensors.keys()], shapes: new Map(short.map(([full, name]) => [name, tensors.get(full)!.shape])) };
}

/** The model's parameters under the names of the file. */
function packed(model: Clip, names: readonly string[], layout: Layout): Pick<Network, "weights" | "transposed"> {
  const targets = names.map((name) => [name, layout(name)] as const).filter(([, { names }]) => names.length > 0);
  const state = model.state();
  const parameters = (names: readonly string[]): Parameter | Parameter[] => {
    const found = names.map((name) => state.get(name) as Parameter);
    return found.length === 1 ? found[0] : found;
  };
  return {
    weights: new Map(targets.map(([name, target]) => [name, parameters(target.names)])),
    transposed: new Set(targets.filter(([, { transposed }]) => transposed).map(([name]) => name)),
  };
}

/** Features are those before they get length 1. */
function openaiOutputs(model: Clip, { image, text }: Tensors): Tensors {
  const [images, captions] = [model.image.embed(image), model.text.embed(text)];
  return {
    image_features: images,
    text_features: captions,
    logits_per_image: model.logits(l2Normalize(images), l2Normalize(captions)),
  };
}
