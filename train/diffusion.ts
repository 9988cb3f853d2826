// Recipe: train the STI latent video diffusion system on the latents of a trained autoencoder. The loop is below, whole.
// Leaves in `out` all that sampling needs: the autoencoder's weights, the tokenizer, and checkpoints with averaged weights.

import { createHash } from "node:crypto";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import type { Dataset } from "../data/store.ts";
import { loadTokenizer, saveTokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, device, grad, joinState, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, Ema, warmupCosine } from "../engine/optim/index.ts";
import { samplePosterior } from "../models/autoencoder.ts";
import type { SystemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import type { Json } from "./checkpoints.ts";
import { constantLoss, encodeDataset } from "./latents.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { type Config, openRun, readRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageResult } from "./stage.ts";

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
  /** Steps between checkpoints; absent: about a minute of them. */
  readonly saveEvery?: number;
  /** Share of captions dropped, for guidance. */
  readonly drop?: number;
  /** A tokenizer.json to use; absent: one is trained on the captions. */
  readonly tokenizer?: string;
  /** How the user goes on after an interrupt, see StepLogOptions. */
  readonly goOn?: string;
}

/** Names of the files in the run folder that sampling reads. */
export const AUTOENCODER_FILE = "autoencoder.safetensors";
export const TOKENIZER_FILE = "tokenizer.json";

/** Longer runs average over more steps, as far as one in a thousand. */
function emaDecay(steps: number): number {
  return Math.min(0.999, 1 - 10 / Math.max(20, steps));
}

/**
 * Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns.
 * @throws TrainingError when the loss or its gradient is not finite any more; Error when the autoencoder's run does not fit
 */
export async function trainDiffusion(o: DiffusionRecipe): Promise<StageResult> {
  const { data, steps, batch, seed } = o;
  const started = performance.now();
  const first = await readRun(o.autoencoder);
  checkAutoencoder(o.autoencoder, first.config, o.config);
  const tokenizer = o.tokenizer
    ? await loadTokenizer(o.tokenizer)
    : trainTokenizer(data.captions, { vocabSize: o.config.text.vocabulary });
  const config = { ...o.config, text: { ...o.config.text, vocabulary: tokenizer.vocabSize } };
  const model = new LatentDiffusion(config).seed(seed);
  const optimizer = new AdamW(trainable(model), { weightDecay: 0.01 });
  const ema = new Ema(trainable(model), emaDecay(steps));
  const rng = new Rng(seed).split("diffusion");
  const state = joinState({
    model: trainable(model),
    ema: ema.state(),
    optimizer: optimizer.state(),
    rng: rng.state,
  });
  const run = await openRun(o.out, {
    config: {
      recipe: "diffusion",
      config: { ...config } as unknown as Json,
      steps,
      batch,
      lr: o.lr,
      seed,
      drop: o.drop ?? 0.1,
      data: data.fingerprint,
      autoencoder: first.checkpoint.sha256,
      tokenizer: sha256(JSON.stringify(tokenizer.file)),
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
  const cut = data.captions.filter((c) => !tokenizer.fits(c, config.text.length)).length;
  if (cut > 0)
    console.error(
      `${cut} of ${data.length} captions are longer than the ${config.text.length} tokens that preset ${config.preset} reads, and were cut`,
    );
  const empty = tensor(tokenizer.encodePadded("", config.text.length));

  const train = compile(
    ({
      mean,
      logvar,
      captions,
      lr,
      start,
    }: {
      mean: Tensor;
      logvar: Tensor;
      captions: Tensor;
      lr: Tensor;
      start: Tensor;
    }) => {
      const z0 = samplePosterior({ mean, logvar }, rng.normal(mean.shape)).mul(latents.scale);
      const loss = model.loss({ latents: z0, captions, empty }, rng, { drop: o.drop });
      const { grads, norm } = clipGradNorm(grad(loss, optimizer.targets), 1);
      optimizer.step(grads, { lr });
      ema.update(start);
      return { loss, norm };
    },
    { name: "diffusion" },
  );

  const log = stepLog(run, { label: "diffusion", steps, batch, goOn: o.goOn });
  const rate = warmupCosine({ lr: o.lr, warmup: Math.min(50, steps / 10), steps, floor: o.lr / 20 });
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const indices = batchIndices(data.length, batch, k, seed);
      const captions = tensor(Int32Array.from(indices.flatMap((i) => [...ids[i]])), [batch, config.text.length]);
      const lr = rate(k);
      const result = train({ ...latents.batch(indices), captions, lr, start: Number(k === 0) });
      const [loss, norm] = await Promise.all([result.loss.item(), result.norm.item()]); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, lr });
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state, { scale: latents.scale }));
    }
    const baseline = constantLoss(config.prediction, model.noiseSchedule, latents);
    return await endStage(run, log, { steps, checkpoint, interrupt, started, baseline });
  } finally {
    interrupt.release();
    run.close();
  }
}

/** Before the run folder is made: one that has been started with the wrong autoencoder could not be resumed with another. */
function checkAutoencoder(dir: string, trained: Config, { autoencoder, preset, size }: SystemConfig): void {
  if (trained.recipe !== "autoencoder")
    throw new Error(`${dir} holds a run of recipe "${String(trained.recipe)}", not an autoencoder`);
  const theirs = trained.config as unknown as SystemConfig;
  if (JSON.stringify(theirs.autoencoder) !== JSON.stringify(autoencoder))
    throw new Error(
      `${dir} holds an autoencoder of preset ${theirs.preset}, which does not fit preset ${preset}: give --preset ${theirs.preset}, or train another one`,
    );
  if (theirs.size !== size)
    throw new Error(`${dir} holds an autoencoder for ${theirs.size} pixels: give --size ${theirs.size}, not ${size}`);
}

/** What this recipe updates and saves: everything but the autoencoder, which has a file of its own. */
export function trainable(model: LatentDiffusion): Map<string, ReturnType<LatentDiffusion["parameters"]>[number]> {
  return new Map([...model.state()].filter(([, p]) => p.trainable));
}

/** Loads the autoencoder that a diffusion run was trained with. */
export async function loadAutoencoder(model: LatentDiffusion, dir: string): Promise<void> {
  const into = joinState({ model: model.autoencoder.state() });
  await load(join(dir, AUTOENCODER_FILE), into, { rename: (name) => (name.startsWith("model.") ? name : null) });
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
