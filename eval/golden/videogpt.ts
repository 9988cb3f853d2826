// Golden kind "videogpt": the authors' VQ-VAE and prior. A folder holds an evaluation and two training steps of the VQ-VAE
// (with its norms' statistics and its codebook afterwards), the prior's logits, loss and gradients, what it samples
// greedily, and layers with given frames. Each is one part below.

import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import { crossEntropy } from "../../engine/nn/index.ts";
import type { Parameter } from "../../engine/state.ts";
import { type Tensor, zeros } from "../../engine/tensor.ts";
import { byName } from "../../models/checkpoints/layout.ts";
import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { readVideoGptConfig, videoGptLayout } from "../../models/checkpoints/videogpt.ts";
import { AttentionStack, type Prior } from "../../models/prior.ts";
import { NextSampler } from "../../models/prior_sampling.ts";
import { VideoGpt } from "../../models/videogpt.ts";
import { currentName, type VqVae } from "../../models/vqvae.ts";
import { asParameter, channelsLast } from "./axes.ts";
import { need, type Stored, upload } from "./files.ts";
import { broken, type Check, type Kind } from "./kind.ts";
import { type ModelFolder, type Norms, openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const videogpt: Kind = {
  name: "videogpt",
  recognises: async (folder) => {
    const config = await peekConfig(folder);
    return typeof config?.vqvae === "object" && typeof config.gpt === "object";
  },
  run,
};

const FRAMES_WEIGHTS = "weights_framecond.safetensors";

interface Models {
  readonly files: ModelFolder;
  readonly video: Tensor;
  readonly vqvae: VqVae;
  readonly prior: Prior;
}

async function* run(path: string): AsyncGenerator<Check> {
  const files = await openModelFolder(path);
  const json = await files.json("config.json");
  const model = new VideoGpt(readVideoGptConfig(json, "config.json"));
  const models: Models = { files, vqvae: model.vqvae, prior: model.prior, video: files.input("video") };
  for (const part of [evaluation, training, beginning, prediction]) {
    await files.load(model.state(), videoGptLayout); // training steps move it
    yield* part(models);
  }
  yield* frames(files, new ConfigReader(json, "config.json").inside("framecond"));
}

// ---- the five parts -------------------------------------------------------------------------------------------------

async function* evaluation({ files, vqvae, video }: Models): AsyncGenerator<Check> {
  const step = compile(({ x }: { x: Tensor }) => {
    const { codes, vectors, reconstruction, error, commitment, perplexity } = vqvae.forward(x);
    return {
      z_pre_vq: vqvae.vectors(x),
      encodings: codes,
      embeddings: vectors,
      decoded: vqvae.decode(codes),
      x_recon: reconstruction,
      recon_loss: error,
      commitment_loss: commitment,
      perplexity,
    };
  });
  yield* held(files, "out.eval.", step({ x: video }));
}

/** One training step of a codebook that has been in use. */
async function* training({ files, vqvae, video }: Models): AsyncGenerator<Check> {
  const order = files.input("randperm");
  const weights = new Map([...vqvae.state()].filter(([, p]) => p.trainable));
  const step = compile(({ x }: { x: Tensor }): Record<string, Tensor> => {
    const { codes, reconstruction, error, commitment, perplexity, loss } = vqvae.forward(x, {
      restart: order,
      init: order,
    });
    const [ofVideo, ...ofWeights] = grad(loss, [x, ...weights.values()]);
    return {
      ...{ encodings: codes, x_recon: reconstruction, perplexity, loss },
      ...{ recon_loss: error, commitment_loss: commitment, "grad.in.video": ofVideo },
      ...Object.fromEntries([...weights.keys()].map((name, i) => [`grad.w.${name}`, ofWeights[i]])),
    };
  });
  const got = { ...step({ x: video }), ...afterwards(vqvae) };
  yield* held(files, "out.train.", got, vqvae.state());
  yield* norms(files, "vqvae", "out.train.", got);
}

/** The first training step of all, which makes the codebook. */
async function* beginning({ files, vqvae, video }: Models): AsyncGenerator<Check> {
  vqvae.codebook.counts.assign(zeros(vqvae.codebook.counts.shape));
  const [restart, init] = [files.input("randperm"), files.input("randperm_init")];
  const step = compile(({ x }: { x: Tensor }) => {
    const { codes, error, commitment } = vqvae.forward(x, { restart, init });
    return { encodings: codes, recon_loss: error, commitment_loss: commitment };
  });
  yield* held(files, "out.init.", { ...step({ x: video }), ...afterwards(vqvae) }, vqvae.state());
}

/** Logits, loss and gradients of the prior on the codes of the video, and the codes that it likes best. */
async function* prediction({ files, vqvae, prior }: Models): AsyncGenerator<Check> {
  const given = need(files.io, "out.eval.encodings");
  const codes = upload({ ...given, shape: [given.shape[0], prior.length] });
  const weights = prior.state();
  const step = compile(({ vectors }: { vectors: Tensor }): Record<string, Tensor> => {
    const features = prior.features(vectors, { shift: true });
    const logits = prior.logits(features);
    const loss = crossEntropy(logits, codes);
    const [ofVectors, ...ofWeights] = grad(loss, [vectors, ...weights.values()]);
    return {
      ...{ logits, loss, after_stack: features, after_norm: prior.norm.forward(features) },
      "grad.in.embeddings": ofVectors,
      ...Object.fromEntries([...weights.keys()].map((name, i) => [`grad.w.${name}`, ofWeights[i]])),
    };
  });
  const got = step({ vectors: vqvae.codebook.lookup(codes) });

  const batch = given.shape[0];
  const sampler = new NextSampler(prior, vqvae.codebook.embeddings, batch, { greedy: true });
  for await (const _ of sampler.draw(zeros([batch, prior.length])));
  const drawn = sampler.codes.reshape([batch, ...prior.config.grid]);
  const sampled = { greedy_codes: drawn, greedy_video: vqvae.decode(drawn).clamp(-0.5, 0.5).add(0.5) };
  yield* held(files, "out.gpt.", { ...got, ...sampled }, weights);
  yield* norms(files, "gpt", "out.gpt.", got);
}

/** Layers that attend to given frames; the folder has these alone. */
async function* frames(files: ModelFolder, layers: ConfigReader): AsyncGenerator<Check> {
  const [t, h, w] = layers.counts("shape", 3);
  const stack = new AttentionStack({
    ...{ grid: [t, h, w], dropout: 0, attentionDropout: 0 },
    width: layers.count("embd_dim"),
    heads: layers.count("n_head"),
    layers: layers.count("n_layer"),
    frames: layers.counts("frame_cond_shape", 4)[3],
  });
  await files.load(stack.state(), byName(currentName), FRAMES_WEIGHTS);
  const flat = (x: Tensor): Tensor => x.reshape([x.shape[0], -1, x.shape[4]]);
  const [x, given] = ["framecond.x", "framecond.frame_cond"].map((name) => flat(files.input(`in.${name}`, asStored)));
  const step = compile(() => ({ out: stack.forward(x, { frames: given }) }));
  yield* held(files, "out.framecond.", step({}));
}

// ---- comparing ------------------------------------------------------------------------------------------------------

const asStored = (x: Stored): Stored => x;

/** What is channels first in the files; codes and all of the prior's are channels last there too. */
const VIDEOS = /\.(z_pre_vq|eval\.embeddings|decoded|x_recon|greedy_video|grad\.in\.video)$/;

/** Every stored array whose name begins with `part`, weights as their parameters. One that is not in `got` fails. */
async function* held(
  files: ModelFolder,
  part: string,
  got: Tensors,
  weights: ReadonlyMap<string, Parameter> = new Map(),
): AsyncGenerator<Check> {
  for (const name of files.io.keys()) {
    const inside = name.slice(part.length);
    const after = inside.startsWith("after.") ? currentName(inside) : inside;
    if (!name.startsWith(part) || after === null) continue; // null: torch's counters of batches, which change nothing
    const weight = weights.get(after.replace(/^grad\.w\./, ""));
    const axes = (x: Stored): Stored =>
      weight ? asParameter(x, weight) : VIDEOS.test(name) && x.shape.length === 5 ? channelsLast(x) : x;
    const values = got[after];
    yield values ? files.check(name, await values.data(), axes) : broken(name, "nothing here computes it");
  }
}

/** State that a training step moves, by the names of the files. */
function afterwards(vqvae: VqVae): Tensors {
  const moved = [...vqvae.state()].filter(([, p]) => !p.trainable);
  return Object.fromEntries(moved.map(([name, p]) => [`after.${name}`, p]));
}

async function* norms(files: ModelFolder, model: string, part: string, got: Tensors): AsyncGenerator<Check> {
  const all = await files.json<Readonly<Record<string, Norms>>>("grad_norms.json");
  for (const name of Object.keys(all[model]))
    yield files.norm(name, await got[`grad.w.${name}`]?.data(), all[model], part);
}
