// Recipe: train the KL autoencoder on single frames. Data in, run folder out; the loop is below, whole.

import type { Dataset } from "../data/store.ts";
import { compile, device, grad, joinState, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, warmupCosine } from "../engine/optim/index.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import type { SystemConfig } from "../models/config.ts";
import type { Json } from "./checkpoints.ts";
import { Loader } from "./loader.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { openRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageRecipe, type StageResult } from "./stage.ts";

export interface AutoencoderRecipe extends StageRecipe {
  readonly data: Dataset;
  readonly config: SystemConfig;
  /** Stickers per step; FRAMES frames of each are trained on. */
  readonly batch: number;
}

/** Frames of each sticker in a step: neighbours look alike, so few of them carry most of the gradient. */
const FRAMES = 2;
const KL_WEIGHT = 1e-6;

/** Records that the mean frame is taken over: as many more would not change the figure's digits. */
const MEAN_RECORDS = 512;

/** Squared error of the best constant picture: the mean frame of the data, per pixel and channel. */
export async function meanFrameLoss(data: Dataset, frames: number): Promise<number> {
  const sums: Float64Array[] = [];
  let count = 0;
  const every = Math.max(1, Math.floor(data.length / MEAN_RECORDS));
  for (let i = 0; i < data.length; i += every) {
    const clip = await data.batch([i]);
    const values = clip.length / frames;
    const [sum, square] = sums.length > 0 ? sums : [new Float64Array(values), new Float64Array(values)];
    if (sums.length === 0) sums.push(sum, square);
    for (let j = 0; j < clip.length; j++) {
      sum[j % values] += clip[j];
      square[j % values] += clip[j] ** 2;
    }
    count += frames;
  }
  const [sum, square] = sums;
  return sum.reduce((total, s, j) => total + square[j] / count - (s / count) ** 2, 0) / sum.length;
}

/**
 * Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns.
 * @throws TrainingError when the loss or its gradient is not finite any more
 */
export async function trainAutoencoder(o: AutoencoderRecipe): Promise<StageResult> {
  const { data, config, steps, batch, seed } = o;
  const started = performance.now();
  const model = new Autoencoder(config.autoencoder).seed(seed);
  const optimizer = new AdamW(model.state(), { weightDecay: 0 });
  const rng = new Rng(seed).split("autoencoder");
  const state = joinState({ model: model.state(), optimizer: optimizer.state(), rng: rng.state });
  const run = await openRun(o.out, {
    config: {
      recipe: "autoencoder",
      config: { ...config } as unknown as Json,
      steps,
      batch,
      lr: o.lr,
      seed,
      data: data.fingerprint,
    },
    resume: o.resume,
    adapter: device().name,
    notice: console.error,
  });
  await run.restore(state);

  const train = compile(
    ({ frames, lr }: { frames: Tensor; lr: Tensor }) => {
      const { loss, reconstruction } = model.loss(frames, rng, { klWeight: KL_WEIGHT });
      const { grads, norm } = clipGradNorm(grad(loss, optimizer.targets), 1);
      optimizer.step(grads, { lr });
      return { reconstruction, norm };
    },
    { name: "autoencoder" },
  );

  const log = stepLog(run, { label: "autoencoder", steps, batch, goOn: o.goOn });
  const rate = warmupCosine({ lr: o.lr, warmup: Math.min(20, steps / 10), steps, floor: o.lr / 20 });
  const loader = new Loader({
    read: (k) => pickFrames(data, batchIndices(data.length, batch, k, seed), config, k),
    from: run.step,
    to: steps,
  });
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const frames = await loader.next();
      const lr = rate(k);
      const result = train({ frames, lr });
      const [loss, norm] = await Promise.all([result.reconstruction.item(), result.norm.item()]); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, lr, stall_ms: loader.stall });
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state));
    }
    return await endStage(run, log, {
      steps,
      checkpoint,
      interrupt,
      started,
      baseline: await meanFrameLoss(data, config.frames),
    });
  } finally {
    interrupt.release();
    await loader.close();
    run.close();
  }
}

/** [batch * FRAMES, H, W, 3]: of each sticker FRAMES frames, evenly spaced from a start that moves on with the step. */
async function pickFrames(
  data: Dataset,
  indices: readonly number[],
  { size, frames }: SystemConfig,
  step: number,
): Promise<Tensor> {
  const clips = await data.batch(indices);
  const values = size * size * 3;
  const out = new Float32Array(indices.length * FRAMES * values);
  indices.forEach((_, b) => {
    for (let f = 0; f < FRAMES; f++) {
      const t = (step + b + Math.floor((f * frames) / FRAMES)) % frames;
      out.set(clips.subarray((b * frames + t) * values, (b * frames + t + 1) * values), (b * FRAMES + f) * values);
    }
  });
  return tensor(out, [indices.length * FRAMES, size, size, 3]);
}
