// CLIP's weights under the names of transformers, which are ours, and under those of OpenAI and open_clip, where query, key
// and value are one tensor and projections are applied as x P, ours as x P^T. Configurations are clip.ts.

import { byName, byRules, type Layout, type Rule } from "./layout.ts";

/** Buffers that files carry and models do not need: position numbers, causal masks, sizes. */
const BUFFER = /(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size)$/;

/** Files of transformers: CLIPModel, either tower alone, with or without projection. */
export const transformersLayout: Layout = byName((name) => (BUFFER.test(name) ? null : name));

/** Theirs with `#` for a layer's number, and ours with `$1` for it. */
type Names = readonly (readonly [theirs: string, ours: string])[];

const LAYER: Names = [
  ["attn.out_proj", "self_attn.out_proj"],
  ["ln_1", "layer_norm1"],
  ["ln_2", "layer_norm2"],
  ["mlp.c_fc", "mlp.fc1"],
  ["mlp.c_proj", "mlp.fc2"],
];
const TEXT: Names = [
  ["token_embedding.weight", "text_model.embeddings.token_embedding.weight"],
  ["positional_embedding", "text_model.embeddings.position_embedding.weight"],
];
const VISION: Names = [
  ["visual.class_embedding", "vision_model.embeddings.class_embedding"],
  ["visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"],
  ["visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"],
];
/** Each of these has a weight and a bias. */
const NORMS: Names = [
  ["ln_final", "text_model.final_layer_norm"],
  ["visual.ln_pre", "vision_model.pre_layrnorm"],
  ["visual.ln_post", "vision_model.post_layernorm"],
];
const BLOCKS: Names = [
  ["transformer.resblocks.#", "text_model.encoder.layers.$1"],
  ["visual.transformer.resblocks.#", "vision_model.encoder.layers.$1"],
];

const PATTERN = (theirs: string): RegExp => new RegExp(theirs.replaceAll(".", "\\.").replace("#", "(\\d+)"));
const rule = ([theirs, ours]: Names[number]): Rule => ({ from: PATTERN(theirs), to: ours });
const weightAndBias = ([theirs, ours]: Names[number]): Rule[] =>
  ["weight", "bias"].map((part) => rule([`${theirs}.${part}`, `${ours}.${part}`]));
const packed = ([theirs, ours]: Names[number]): Rule[] =>
  ["weight", "bias"].map((part) => ({
    from: PATTERN(`${theirs}.attn.in_proj_${part}`),
    to: ["q", "k", "v"].map((x) => `${ours}.self_attn.${x}_proj.${part}`),
  }));

const RULES: readonly Rule[] = [
  ...[...TEXT, ...VISION].map(rule),
  ...NORMS.flatMap(weightAndBias),
  ...BLOCKS.flatMap(packed),
  ...BLOCKS.flatMap(([b, o]) => LAYER.flatMap(([theirs, ours]) => weightAndBias([`${b}.${theirs}`, `${o}.${ours}`]))),
  { from: PATTERN("text_projection"), to: "text_projection.weight", transposed: true },
  { from: PATTERN("visual.proj"), to: "visual_projection.weight", transposed: true },
];

/**
 * Names in OpenAI's and open_clip's files less what stands before them: "module.", "cond_stage_model.model.", and "text."
 * where the text tower is a part of its own. Buffers are left out; so is what belongs to neither tower, but for the scale.
 * Null when the names are not of this kind.
 */
export function openaiNames(names: Iterable<string>): Map<string, string> | null {
  const all = [...names].filter((name) => !BUFFER.test(name));
  const before = (ending: string): string | undefined =>
    all.find((name) => name === ending || name.endsWith(`.${ending}`))?.slice(0, -ending.length);
  const [text, vision] = [before("token_embedding.weight"), before("visual.positional_embedding")];
  const outer = vision ?? text?.replace(/text\.$/, "");
  if (outer === undefined || !all.some((name) => name.includes("resblocks."))) return null;
  const short = (name: string): string | null => {
    if (name === `${outer}logit_scale`) return "logit_scale";
    if (name.startsWith(`${outer}visual.`)) return name.slice(outer.length);
    return text !== undefined && name.startsWith(text) ? name.slice(text.length) : null;
  };
  const pairs = all.map((name) => [name, short(name)] as const);
  return new Map(pairs.filter((pair): pair is [string, string] => pair[1] !== null));
}

/** How a file with these names is laid out, or null when they are not OpenAI's or open_clip's. */
export function openaiLayout(names: Iterable<string>): Layout | null {
  const known = openaiNames(names);
  const rules = byRules(RULES);
  return known && ((name) => (known.has(name) ? rules(known.get(name)!) : { names: [] }));
}
