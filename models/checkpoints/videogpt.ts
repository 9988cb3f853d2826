// VideoGPT in its authors' files: the arguments that their two networks were made with, as config.json {"vqvae", "gpt"}, to
// our configuration, and names. Their prior's file holds the VQ-VAE as well.

import type { VideoGptConfig } from "../videogpt.ts";
import { currentName } from "../vqvae.ts";
import { byName, type Layout } from "./layout.ts";
import { ConfigError, ConfigReader } from "./reader.ts";

/** Throws ConfigError for what is not here: given frames, classes, sparse attention. */
export function readVideoGptConfig(json: unknown, label: string): VideoGptConfig {
  const r = new ConfigReader(json, label);
  const [vqvae, gpt] = [r.inside("vqvae"), r.inside("gpt")];
  gpt.only("n_cond_frames", 0);
  gpt.only("class_cond", false);
  gpt.only("attn_type", "full");
  const [t, h, w] = vqvae.counts("downsample", 3);
  return {
    system: "videogpt",
    preset: "paper",
    size: vqvae.count("resolution", 128),
    frames: vqvae.count("sequence_length", 16),
    vqvae: {
      hidden: vqvae.count("n_hiddens"),
      layers: vqvae.depth("n_res_layers"),
      codes: vqvae.count("n_codes"),
      embedding: vqvae.count("embedding_dim"),
      strides: [t, h, w],
    },
    prior: {
      ...{ objective: "next", tags: null, frames: null },
      width: gpt.count("hidden_dim"),
      heads: gpt.count("heads"),
      layers: gpt.depth("layers"),
      dropout: gpt.number("dropout", 0),
      attentionDropout: gpt.number("attn_dropout", 0),
    },
  };
}

/** The same back. Tags and given frames are this project's own and have no place there. */
export function writeVideoGptConfig({ size, frames, vqvae, prior }: VideoGptConfig): object {
  if (prior.tags || prior.frames || prior.objective !== "next")
    throw new ConfigError(
      "a VideoGPT with tags, given frames or the masked objective has no place in its authors' layout",
    );
  return {
    vqvae: {
      resolution: size,
      sequence_length: frames,
      n_hiddens: vqvae.hidden,
      n_res_layers: vqvae.layers,
      n_codes: vqvae.codes,
      embedding_dim: vqvae.embedding,
      downsample: vqvae.strides,
    },
    gpt: {
      hidden_dim: prior.width,
      heads: prior.heads,
      layers: prior.layers,
      dropout: prior.dropout,
      attn_dropout: prior.attentionDropout,
      ...{ attn_type: "full", class_cond: false, n_cond_frames: 0 },
    },
  };
}

/** The prior's names stand alone in their files, ours are below "prior.". */
export const videoGptLayout: Layout = byName((name) => {
  const current = currentName(name);
  return current === null || current.startsWith("vqvae.") ? current : `prior.${current}`;
});
