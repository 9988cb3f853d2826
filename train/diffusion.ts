// Recipe: train a latent video diffusion system on the latents of a trained autoencoder. The loop is below, whole. Leaves in
// `out` all that sampling needs: the autoencoder's weights, the tokenizer, checkpoints with averaged weights, and what the
// trainable set leaves frozen.

import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256Json } from "../data/hash.ts";
import type { Dataset } from "../data/store.ts";
import { loadTokenizer, saveTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { device, type Feed, joinState, Rng, type Tensor } from "../engine/index.ts";
import {
  AdamW,
  clipGradNorm,
  constant,
  Ema,
  inHalf,
  LossScaler,
  type LrSchedule,
  linearWarmup,
  warmupCosine,
} from "../engine/optim/index.ts";
import { samplePosterior } from "../models/autoencoder.ts";
import type { SystemConfig } from "../models/config.ts";
import { LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import { trainingStep } from "./accumulate.ts";
import { featureSet, tokenSet } from "./captions.ts";
import type { Json } from "./checkpoints.ts";
import { AUTOENCODER_FILE, loadAutoencoder, loadFrozen, saveFrozen, trainable } from "./frozen.ts";
import { constantLoss, encodeDataset, rescaled } from "./latents.ts";
import { Loader } from "./loader.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { pictureVectors } from "./pictures.ts";
import { type Config, openRun, readRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageRecipe, type StageResult } from "./stage.ts";

export interface DiffusionRecipe extends StageRecipe {
  readonly data: Dataset;
  readonly config: SystemConfig;
  /** Run folder of the autoencoder stage. */
  readonly autoencoder: string;
  /** Stickers per batch, and batches per step: their gradients are averaged. */
  readonly batch: number;
  readonly accumulate?: number;
  /** Shape of the rate: half a cosine down to a twentieth (default), or constant; after `warmup` steps of linear rise. */
  readonly schedule?: "cosine" | "constant";
  readonly warmup?: number;
  /** What is trained; the rest is frozen. Default scratch. */
  readonly trained?: Trained;
  /** f16: networks compute on casts of their weights, which stay f32 as their moments do; the loss is scaled. Default f32. */
  readonly precision?: "f32" | "f16";
  /** Weights to begin with, where it is not the seed's. */
  readonly init?: Initialiser;
  /** Checkpoints at multiples of this many steps stay; absent: the last two alone. */
  readonly keepEvery?: number;
  /** Share of captions dropped, for guidance. Default 0.1. */
  readonly drop?: number;
  /** A tokenizer.json to use; absent: one is trained on the captions. */
  readonly tokenizer?: string;
  /** Folder for latents and text features; absent: in `out`. */
  readonly cache?: string;
}

/** Fills a new model. A run that is resumed does not ask again: it has kept what it does not train. */
export interface Initialiser {
  /** What it is, for the run's configuration: equal values stand for equal weights. */
  readonly identity: Json;
  /** What its latents are multiplied by; absent: the scale that gives those of the data variance 1. */
  readonly scale?: number;
  load(model: LatentDiffusion): Promise<void>;
}

/** Name of the file in the run folder that sampling reads. */
export const TOKENIZER_FILE = "tokenizer.json";

/** Longer runs average over more steps, as far as one in a thousand. */
function emaDecay(steps: number): number {
  return Math.min(0.999, 1 - 10 / Math.max(20, steps));
}

function rateOf({ lr, steps, schedule = "cosine", warmup = Math.min(50, steps / 10) }: DiffusionRecipe): LrSchedule {
  if (schedule === "constant") return linearWarmup(warmup, constant(lr));
  return warmupCosine({ lr, warmup, steps, floor: lr / 20 });
}

/**
 * Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns.
 * @throws TrainingError when the loss or its gradient is not finite any more; Error when the autoencoder's run does not fit
 */
export async function trainDiffusion(o: DiffusionRecipe): Promise<StageResult> {
  const { data, steps, batch, seed, accumulate = 1, drop = 0.1, trained = "scratch", cache = join(o.out, "cache") } = o;
  const started = performance.now();
  const first = await readRun(o.autoencoder);
  checkAutoencoder(o.autoencoder, first.config, o.config);
  const tokenizer = o.tokenizer
    ? await loadTokenizer(o.tokenizer)
    : trainTokenizer(data.captions, { vocabSize: o.config.text.vocabulary });
  // A model that is loaded has its own embeddings; a new one has as many as there are tokens.
  const config = o.init ? o.config : { ...o.config, text: { ...o.config.text, vocabulary: tokenizer.vocabSize } };
  const model = new LatentDiffusion(config).seed(seed).train(trained);
  const optimizer = new AdamW(trainable(model), { weightDecay: 0.01 });
  const ema = new Ema(trainable(model), emaDecay(steps));
  const scaler = o.precision === "f16" ? new LossScaler() : undefined;
  const rng = new Rng(seed).split("diffusion");
  const state = joinState({
    model: trainable(model),
    ema: ema.state(),
    optimizer: optimizer.state(),
    scaler: scaler?.state() ?? new Map(),
    rng: rng.state,
  });
  const run = await openRun(o.out, {
    config: {
      recipe: "diffusion",
      config: { ...config } as unknown as Json,
      steps,
      batch,
      accumulate,
      lr: o.lr,
      schedule: o.schedule ?? "cosine",
      warmup: o.warmup ?? null,
      seed,
      drop,
      trained,
      precision: o.precision ?? "f32",
      init: o.init?.identity ?? null,
      data: data.fingerprint,
      autoencoder: first.checkpoint.sha256,
      tokenizer: sha256Json(tokenizer.file),
    },
    resume: o.resume,
    keepEvery: o.keepEvery,
    adapter: device().name,
    notice: console.error,
  });
  await copyFile(first.checkpoint.path, join(o.out, AUTOENCODER_FILE));
  await loadAutoencoder(model, o.out);
  await saveTokenizer(tokenizer, join(o.out, TOKENIZER_FILE));
  if (run.resumed) await loadFrozen(model, o.out);
  else {
    await o.init?.load(model);
    await saveFrozen(model, o.out);
  }
  await run.restore(state);

  const encoded = await encodeDataset(model.autoencoder, data, { config, weights: first.checkpoint.sha256, cache });
  const latents = rescaled(encoded, o.init?.scale);
  model.autoencoder.scale = latents.scale;
  reportCut(data.captions, tokenizer, config);
  const { length, width } = config.text;
  const captions =
    trained === "scratch"
      ? tokenSet(data.captions, tokenizer, length)
      : await featureSet(data.captions, tokenizer, model.textEncoder, { length, width, cache });

  // The first frame's latents are the picture; only an image encoder needs to see it.
  const pictures =
    config.pictures && model.imageEncoder
      ? await pictureVectors(data, model.imageEncoder, { size: config.size, cache })
      : null;

  type Batch = Record<"mean" | "logvar" | "captions", Tensor> & { readonly vectors?: Tensor };
  const train = trainingStep({
    name: "diffusion",
    parts: accumulate,
    targets: optimizer.targets,
    scaler,
    loss: ({ mean, logvar, captions: text, vectors }: Batch) => {
      const z0 = samplePosterior({ mean, logvar }, rng.normal(mean.shape)).mul(latents.scale);
      const clips = { latents: z0, captions: text, empty: captions.empty, vectors };
      const loss = (): Tensor => model.loss(clips, rng, { drop });
      return scaler ? inHalf(loss) : loss();
    },
    update: (gradients, { lr, start }: Record<"lr" | "start", Tensor>, finite) => {
      const { grads, norm } = clipGradNorm(gradients, 1);
      optimizer.step(grads, { lr, when: finite });
      ema.update(start);
      return norm;
    },
  });
  const feed = async (place: number): Promise<Feed<Batch>> => {
    const indices = batchIndices(data.length, batch, place, seed);
    const vectors = pictures && { vectors: await pictures.batch(indices) };
    return { ...(await latents.batch(indices)), captions: await captions.batch(indices), ...vectors };
  };
  const loader = new Loader({
    read: (k) => Promise.all(Array.from({ length: accumulate }, (_, i) => feed(k * accumulate + i))),
    from: run.step,
    to: steps,
  });

  const log = stepLog(run, { label: "diffusion", steps, batch: batch * accumulate, goOn: o.goOn });
  const rate = rateOf(o);
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery, o.keepEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const batches = await loader.next();
      const lr = rate(k);
      const result = train(batches, { lr, start: Number(k === 0) });
      const [loss, norm] = await Promise.all([result.loss.item(), result.norm.item()]); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, lr, stall_ms: loader.stall });
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state, { scale: latents.scale }));
    }
    const baseline = constantLoss(config.prediction, model.noiseSchedule, latents);
    return await endStage(run, log, { steps, checkpoint, interrupt, started, baseline });
  } finally {
    interrupt.release();
    await loader.close();
    latents.close();
    captions.close();
    pictures?.close();
    run.close();
  }
}

/** Says how many captions the model cannot read to their end. */
function reportCut(captions: readonly string[], tokenizer: Tokenizer, { text, preset }: SystemConfig): void {
  const cut = captions.filter((c) => !tokenizer.fits(c, text.length)).length;
  if (cut > 0)
    console.error(
      `${cut} of ${captions.length} captions are longer than the ${text.length} tokens that preset ${preset} reads, and were cut`,
    );
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
