// Recipe: train VideoGPT's prior on the codes that a trained VQ-VAE gives, told by tags. The loop is below, whole. Leaves in
// `out` all that sampling needs: the VQ-VAE's weights, the list of tags, and checkpoints.

import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256Json } from "../data/hash.ts";
import type { Dataset } from "../data/store.ts";
import { inSlots, someTags, Tags } from "../data/tags.ts";
import { replaceFile } from "../engine/atomic.ts";
import { load } from "../engine/checkpoint.ts";
import { bitsFrom, compile, device, grad, joinState, type Named, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, warmupCosine } from "../engine/optim/index.ts";
import { VideoGpt, type VideoGptConfig } from "../models/videogpt.ts";
import type { Json } from "./checkpoints.ts";
import { chunksOf, Loader } from "./loader.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { progress } from "./progress.ts";
import { type Config, openRun, readRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageRecipe, type StageResult } from "./stage.ts";

export interface PriorRecipe extends StageRecipe {
  readonly data: Dataset;
  readonly config: VideoGptConfig;
  /** Run folder of the VQ-VAE stage. */
  readonly vqvae: string;
  /** Checkpoints at multiples of this many steps stay; absent: the last two alone. */
  readonly keepEvery?: number;
}

/** Names of the files in the run folder that sampling reads. */
const VQVAE_FILE = "vqvae.safetensors";
export const TAGS_FILE = "tags.json";

/**
 * Trains, or goes on training, and leaves the last checkpoint in `out`. Ctrl-C saves and returns. Losses are nats per code.
 * @throws TrainingError when the loss or its gradient is not finite any more; Error when the VQ-VAE's run does not fit
 */
export async function trainPrior(o: PriorRecipe): Promise<StageResult> {
  const { data, steps, batch, seed } = o;
  const started = performance.now();
  const first = await readRun(o.vqvae);
  checkVqVae(o.vqvae, first.config, o.config);
  const tagged = o.config.prior.tags;
  const tags = tagged && Tags.of(data.records, tagged.count);
  const config = withTags(o.config, tags);
  const model = new VideoGpt(config).seed(seed);
  model.vqvae.freeze();
  const { prior } = model;
  const optimizer = new AdamW(prior.state(), { weightDecay: 0.01 });
  const rng = new Rng(seed).split("prior");
  const state = joinState({ model: prior.state(), optimizer: optimizer.state(), rng: rng.state });
  const ofRecords = tags && data.records.map((record) => tags.ofRecord(record));
  const run = await openRun(o.out, {
    config: {
      recipe: "prior",
      config: { ...config } as unknown as Json,
      steps,
      batch,
      lr: o.lr,
      seed,
      data: data.fingerprint,
      vqvae: first.checkpoint.sha256,
      tags: tags && sha256Json([tags.words, ofRecords]),
    },
    resume: o.resume,
    keepEvery: o.keepEvery,
    adapter: device().name,
    notice: console.error,
  });
  await copyFile(first.checkpoint.path, join(o.out, VQVAE_FILE));
  await loadVqVae(model, o.out);
  if (tags) await replaceFile(join(o.out, TAGS_FILE), (file) => file.writeFile(`${JSON.stringify(tags.words)}\n`));
  await run.restore(state);

  const codes = await encodeCodes(model, data);
  const train = compile(
    ({ z, lr, tags }: Named) => {
      const loss = prior.loss(z, model.vqvae.codebook.embeddings, rng, { tags });
      const { grads, norm } = clipGradNorm(grad(loss, optimizer.targets), 1);
      optimizer.step(grads, { lr });
      return { loss, norm };
    },
    { name: "prior" },
  );

  const log = stepLog(run, { label: "prior", steps, batch, goOn: o.goOn });
  const rate = warmupCosine({ lr: o.lr, warmup: Math.min(50, steps / 10), steps, floor: o.lr / 20 });
  const loader = new Loader({
    read: (k) => {
      const indices = batchIndices(data.length, batch, k, seed);
      const z = tensor(Int32Array.from(indices.flatMap((i) => [...codes[i]])), [batch, prior.length]);
      const slots = config.prior.tags?.slots;
      return { z, ...(ofRecords && slots ? pickTags(indices, ofRecords, slots, k, seed) : {}) };
    },
    from: run.step,
    to: steps,
  });
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery, o.keepEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const inputs = await loader.next();
      const lr = rate(k);
      const result = train({ ...inputs, lr });
      const [loss, norm] = await Promise.all([result.loss.item(), result.norm.item()]); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, lr, stall_ms: loader.stall });
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state));
    }
    const baseline = entropy(codes, config.vqvae.codes);
    return await endStage(run, log, { steps, checkpoint, interrupt, started, baseline, guess: "code frequencies" });
  } finally {
    interrupt.release();
    await loader.close();
    run.close();
  }
}

/** The configuration with as many tags as the data has. */
function withTags(config: VideoGptConfig, tags: Tags | null): VideoGptConfig {
  const { prior } = config;
  return { ...config, prior: { ...prior, tags: prior.tags && tags && { ...prior.tags, count: tags.words.length } } };
}

/** Tags of the stickers of step `k`: some of each one's, others in every epoch, so that few of them mean something too. */
function pickTags(
  indices: readonly number[],
  all: readonly (readonly number[])[],
  slots: number,
  k: number,
  seed: number,
): { tags: Tensor } {
  const rows = indices.map((record, b) => {
    const bits = bitsFrom(seed, `tags ${k} ${b}`);
    let drawn = 0;
    return inSlots(
      someTags(all[record], slots, () => bits(drawn++) / 2 ** 32),
      slots,
    );
  });
  return { tags: tensor(Int32Array.from(rows.flatMap((row) => [...row])), [rows.length, slots]) };
}

/** Clips per call of the encoder. */
const CHUNK = 4;

/** Codes of all clips, on the host: 4 bytes each. */
async function encodeCodes(model: VideoGpt, data: Dataset): Promise<Int32Array[]> {
  const { size, frames } = model.config;
  const encode = compile(({ clips }: { clips: Tensor }) => ({ codes: model.encode(clips) }), { name: "encode" });
  const all: Int32Array[] = [];
  const line = progress("encoding", data.length);
  const chunks = chunksOf(data, CHUNK);
  try {
    for (let i = 0; i < data.length; i += CHUNK) {
      const values = await encode({ clips: tensor(await chunks.next(), [CHUNK, frames, size, size, 3]) }).codes.data();
      for (let j = 0; j < CHUNK && i + j < data.length; j++)
        all.push(Int32Array.from(values.subarray((j * values.length) / CHUNK, ((j + 1) * values.length) / CHUNK)));
      line.update(Math.min(i + CHUNK, data.length));
    }
  } finally {
    await chunks.close();
  }
  line.done();
  return all;
}

/** Nats per code of the best constant answer: how often each code occurs. */
function entropy(rows: readonly Int32Array[], codes: number): number {
  const counts = new Float64Array(codes);
  for (const row of rows) for (const code of row) counts[code]++;
  const total = counts.reduce((a, b) => a + b, 0);
  return counts.reduce((sum, n) => (n > 0 ? sum - (n / total) * Math.log(n / total) : sum), 0);
}

/** Before the run folder is made: one that has been started with the wrong VQ-VAE could not be resumed with another. */
function checkVqVae(dir: string, trained: Config, { vqvae, preset, size, frames }: VideoGptConfig): void {
  if (trained.recipe !== "vqvae")
    throw new Error(`${dir} holds a run of recipe "${String(trained.recipe)}", not a VQ-VAE`);
  const theirs = trained.config as unknown as VideoGptConfig;
  if (JSON.stringify(theirs.vqvae) !== JSON.stringify(vqvae) || theirs.frames !== frames)
    throw new Error(
      `${dir} holds a VQ-VAE of preset ${theirs.preset}, which does not fit preset ${preset}: give --preset ${theirs.preset}, or train another one`,
    );
  if (theirs.size !== size)
    throw new Error(`${dir} holds a VQ-VAE for ${theirs.size} pixels: give --size ${theirs.size}, not ${size}`);
}

/** Loads the VQ-VAE that a prior's run was trained with. */
export async function loadVqVae(model: VideoGpt, dir: string): Promise<void> {
  const into = joinState({ model: model.vqvae.state() });
  await load(join(dir, VQVAE_FILE), into, { rename: (name) => (name.startsWith("model.") ? name : null) });
}
