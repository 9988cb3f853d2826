// Recipe: train VideoGPT's VQ-VAE on clips. Data in, run folder out; the loop is below, whole.

import type { Dataset } from "../data/store.ts";
import { compile, device, grad, joinState, Rng, type Tensor, tensor } from "../engine/index.ts";
import { mse } from "../engine/nn/index.ts";
import { AdamW, clipGradNorm, warmupCosine } from "../engine/optim/index.ts";
import { PIXELS, type VideoGptConfig } from "../models/videogpt.ts";
import { VqVae } from "../models/vqvae.ts";
import { meanFrameLoss } from "./autoencoder.ts";
import type { Json } from "./checkpoints.ts";
import { CollapseAlarm } from "./collapse.ts";
import { Loader } from "./loader.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { openRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageRecipe, type StageResult } from "./stage.ts";

export interface VqVaeRecipe extends StageRecipe {
  readonly data: Dataset;
  readonly config: VideoGptConfig;
}

/** The loss is an error divided by 0.06, so its gradients are large; these are only for steps that go astray. */
const MAX_NORM = 10;

/**
 * Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns. Losses are squared errors
 * of pixels in [-1, 1], as the autoencoder's are.
 * @throws TrainingError when the loss or its gradient is not finite any more
 */
export async function trainVqVae(o: VqVaeRecipe): Promise<StageResult> {
  const { data, config, steps, batch, seed } = o;
  const { size, frames, vqvae } = config;
  const started = performance.now();
  const model = new VqVae(vqvae).seed(seed);
  model.grid([frames, size, size]); // throws where the strides do not divide the clip
  const optimizer = new AdamW(model.state(), { weightDecay: 0 });
  const rng = new Rng(seed).split("vqvae");
  const state = joinState({ model: model.state(), optimizer: optimizer.state(), rng: rng.state });
  const run = await openRun(o.out, {
    config: {
      recipe: "vqvae",
      config: { preset: config.preset, size, frames, vqvae } as unknown as Json,
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
    ({ clips, lr }: { clips: Tensor; lr: Tensor }) => {
      const x = clips.mul(PIXELS);
      const { loss, reconstruction, perplexity, alive } = model.forward(x, { init: rng, restart: rng });
      const { grads, norm } = clipGradNorm(grad(loss, optimizer.targets), MAX_NORM);
      optimizer.step(grads, { lr });
      return { error: mse(reconstruction, x).div(PIXELS ** 2), norm, perplexity, alive };
    },
    { name: "vqvae" },
  );

  const log = stepLog(run, { label: "vqvae", steps, batch, goOn: o.goOn });
  const rate = warmupCosine({ lr: o.lr, warmup: Math.min(20, steps / 10), steps, floor: o.lr / 20 });
  const alarm = new CollapseAlarm({ codes: vqvae.codes });
  const shape = [batch, frames, size, size, 3];
  const loader = new Loader({
    read: async (k) => tensor(await data.batch(batchIndices(data.length, batch, k, seed)), shape),
    from: run.step,
    to: steps,
  });
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const clips = await loader.next();
      const lr = rate(k);
      const result = train({ clips, lr });
      const values = [result.error, result.norm, result.perplexity, result.alive].map((t) => t.item());
      const [loss, norm, perplexity, alive] = await Promise.all(values); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, perplexity, codes_alive: alive, lr, stall_ms: loader.stall });
      const warning = alarm.hear(k + 1, perplexity);
      if (warning) console.error(warning);
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state));
    }
    return await endStage(run, log, {
      steps,
      checkpoint,
      interrupt,
      started,
      baseline: await meanFrameLoss(data, frames),
    });
  } finally {
    interrupt.release();
    await loader.close();
    run.close();
  }
}
