// Recipe: train the STI latent video diffusion system on the latents of a trained autoencoder. The loop is below, whole.
// Leaves in `out` all that sampling needs: the autoencoder's weights, the tokenizer, and checkpoints with averaged weights.

import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import type { Dataset } from "../data/store.ts";
import { loadTokenizer, saveTokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, device, grad, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, Ema } from "../engine/optim.ts";
import { samplePosterior } from "../models/autoencoder.ts";
import type { SystemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import type { Json } from "./checkpoints.ts";
import { encodeDataset } from "./latents.ts";
import { interruptible, stepLog } from "./log.ts";
import { learningRate } from "./lr.ts";
import { batchIndices } from "./order.ts";
import { openRun, readRun } from "./run.ts";
import { checkFinite, type StageResult, tenth } from "./stage.ts";

export interface DiffusionRecipe {
  readonly data: Dataset;
  readonly config: SystemConfig;
  /** Run folder of the autoencoder stage. */
  readonly autoencoder: string;
  /** Run folder of this stage. */
  readonly out: string;
  readonly steps: number;
  /** Stickers per step. */
  readonly batch: number;
  readonly lr: number;
  readonly seed: number;
  readonly resume: boolean;
  readonly saveEvery?: number;
  /** Share of captions dropped, for guidance. */
  readonly drop?: number;
  /** A tokenizer.json to use; absent: one is trained on the captions. */
  readonly tokenizer?: string;
}

/** Names of the files in the run folder that sampling reads. */
export const AUTOENCODER_FILE = "autoencoder.safetensors";
export const TOKENIZER_FILE = "tokenizer.json";

/** Longer runs average over more steps, as far as one in a thousand. */
function emaDecay(steps: number): number {
  return Math.min(0.999, 1 - 10 / Math.max(20, steps));
}

/** Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns. */
export async function trainDiffusion(o: DiffusionRecipe): Promise<StageResult> {
  const { data, steps, batch, seed } = o;
  const started = performance.now();
  const first = await readRun(o.autoencoder);
  const tokenizer = o.tokenizer ? await loadTokenizer(o.tokenizer) : trainTokenizer(data.captions, { vocabSize: o.config.text.vocabulary });
  const config = { ...o.config, text: { ...o.config.text, vocabulary: tokenizer.vocabSize } };
  const model = new LatentDiffusion(config).seed(seed);
  const optimizer = new AdamW(trainable(model), { weightDecay: 0.01 });
  const ema = new Ema(trainable(model), emaDecay(steps));
  const rng = new Rng(seed).split("diffusion");
  const state = new Map([
    ...prefixed("model", trainable(model)),
    ...prefixed("ema", ema.state()),
    ...prefixed("optimizer", optimizer.state()),
    ["rng", rng.state] as const,
  ]);
  const run = await openRun(o.out, {
    config: {
      recipe: "diffusion", config: { ...config } as unknown as Json, steps, batch, lr: o.lr, seed, drop: o.drop ?? 0.1,
      data: data.fingerprint, autoencoder: first.checkpoint.sha256,
    },
    resume: o.resume,
    adapter: device().name,
    notice: console.error,
  });
  await copyFile(first.checkpoint.path, join(o.out, AUTOENCODER_FILE));
  await loadAutoencoder(model, o.out);
  await saveTokenizer(tokenizer, join(o.out, TOKENIZER_FILE));
  await run.restore(state);

  const latents = await encodeDataset(model.autoencoder, data, config);
  model.autoencoder.scale = latents.scale;
  const ids = data.captions.map((c) => tokenizer.encodePadded(c, config.text.length));
  const cut = data.captions.filter((c) => tokenizer.encode(c).length > config.text.length).length;
  if (cut > 0) console.error(`${cut} of ${data.length} captions are longer than ${config.text.length} tokens and were cut`);
  const empty = tensor(tokenizer.encodePadded("", config.text.length));

  const train = compile(
    ({ mean, logvar, captions, lr, start }: { mean: Tensor; logvar: Tensor; captions: Tensor; lr: Tensor; start: Tensor }) => {
      const z0 = samplePosterior({ mean, logvar }, rng.normal(mean.shape)).mul(latents.scale);
      const loss = model.loss({ latents: z0, captions, empty }, rng, { drop: o.drop });
      const { grads } = clipGradNorm(grad(loss, optimizer.targets), 1);
      optimizer.step(grads, { lr });
      ema.update(start);
      return { loss };
    },
    { name: "diffusion" },
  );

  const log = stepLog(run, { label: "diffusion", steps, batch });
  const interrupt = interruptible();
  const losses: { step: number; loss: number }[] = [];
  const saveEvery = o.saveEvery ?? 250;
  let saved = run.step;
  let sha256: string | null = null;
  for (let k = run.step; k < steps && !interrupt.requested; k++) {
    const indices = batchIndices(data.length, batch, k, seed);
    const captions = tensor(Int32Array.from(indices.flatMap((i) => [...ids[i]])), [batch, config.text.length]);
    const lr = learningRate({ peak: o.lr, warmup: Math.min(50, steps / 10), steps, floor: o.lr / 20 }, k);
    const loss = await train({ ...latents.batch(indices), captions, lr, start: Number(k === 0) }).loss.item(); // waits for the device
    checkFinite(loss, k + 1, o.out, saved);
    losses.push({ step: k + 1, loss });
    log.step(k + 1, { loss, lr });
    const last = k + 1 === steps;
    if (last || interrupt.requested || (k + 1) % saveEvery === 0) {
      const checkpoint = await run.save(k + 1, state, { scale: latents.scale });
      saved = k + 1;
      if (last) {
        sha256 = checkpoint.sha256;
        await run.finish(checkpoint);
      }
    }
  }
  if (sha256) log.done();
  else log.stopped(saved);
  interrupt.release();
  run.close();
  const all = losses.length > 0 ? losses : [{ step: run.step, loss: Number.NaN }];
  // The best constant answer to "which noise was added" is its mean, zero, whose squared error is the noise's variance, 1.
  return { steps, seconds: (performance.now() - started) / 1000, firstLoss: tenth(all, "first"), lastLoss: tenth(all, "last"), baseline: 1, sha256, losses };
}

/** What this recipe updates and saves: everything but the autoencoder, which has a file of its own. */
export function trainable(model: LatentDiffusion): Map<string, ReturnType<LatentDiffusion["parameters"]>[number]> {
  return new Map([...model.state()].filter(([, p]) => p.trainable));
}

/** Loads the autoencoder that a diffusion run was trained with. */
export async function loadAutoencoder(model: LatentDiffusion, dir: string): Promise<void> {
  const into = new Map(prefixed("model", model.autoencoder.state()));
  await load(join(dir, AUTOENCODER_FILE), into, { rename: (name) => (name.startsWith("model.") ? name : null) });
}

function prefixed<T>(prefix: string, entries: ReadonlyMap<string, T>): [string, T][] {
  return [...entries].map(([name, value]) => [`${prefix}.${name}`, value]);
}
