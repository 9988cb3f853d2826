// Recipe: the classifier that says of a sticker whether it is drawn or photographed (spec 5), and asking it. Labelled stickers
// in, run folder out. Called by `gifgrad dataset train-domain`, and by the stage `domain` through cli/dataset.ts.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeClip } from "../data/clip.ts";
import type { DomainClassifiers, DomainVerdict } from "../data/curate/stages/domain.ts";
import type { Labelled } from "../data/labelled.ts";
import { DOMAINS, type Domain } from "../data/record.ts";
import { replaceFile } from "../engine/atomic.ts";
import {
  bitsFrom,
  compile,
  device,
  grad,
  joinState,
  load,
  openDevice,
  Rng,
  type Tensor,
  tensor,
} from "../engine/index.ts";
import { crossEntropy } from "../engine/nn/index.ts";
import { AdamW, clipGradNorm, warmupCosine } from "../engine/optim/index.ts";
import { loadForeign } from "../models/checkpoints/layout.ts";
import {
  EFFICIENTNET_B0,
  EfficientNet,
  type EfficientNetConfig,
  efficientNetInput,
  efficientNetLayout,
} from "../models/efficientnet.ts";
import type { Json } from "./checkpoints.ts";
import { Loader } from "./loader.ts";
import { interruptible, stepLog } from "./log.ts";
import { batchIndices } from "./order.ts";
import { openRun, type RunRecord, readRun } from "./run.ts";
import { checkFinite, endStage, SaveClock, type StageRecipe, type StageResult } from "./stage.ts";

export interface DomainRecipe extends StageRecipe {
  /** Opened with FRAMES frames of `size` pixels. */
  readonly data: Labelled;
  readonly size: number;
  /** Of EfficientNet-B0's widths. */
  readonly width: number;
  /** A file of torchvision's weights of that width to start from; the classes are learned anew. */
  readonly init?: string;
  /** Pictures per step, half of each domain. */
  readonly batch: number;
}

/** Frames of a sticker that are looked at: first, middle and last. Its probability is the mean of theirs. */
export const FRAMES = 3;

/** How well held-out stickers are told apart; also in the run folder. */
export interface DomainReport {
  readonly stickers: number;
  readonly accuracy: number;
  /** What it is -> what it is taken for -> stickers. */
  readonly confusion: Readonly<Record<Domain, Readonly<Record<Domain, number>>>>;
}

const REPORT = "held_out.json";
const WEIGHT_DECAY = 1e-2;

/**
 * Trains, or goes on training; tests a complete run on what was held out. Ctrl-C saves and returns a null report.
 * @throws TrainingError when the loss or its gradient is not finite any more; LoadError when `init` does not fit
 */
export async function trainDomain(o: DomainRecipe): Promise<StageResult & { readonly report: DomainReport | null }> {
  const { data, size, steps, batch, seed } = o;
  const started = performance.now();
  const config: EfficientNetConfig = { ...EFFICIENTNET_B0, classes: DOMAINS.length, width: o.width };
  const model = new EfficientNet(config).seed(seed);
  const optimizer = new AdamW(model.state(), { weightDecay: WEIGHT_DECAY });
  const rng = new Rng(seed).split("domain");
  const state = joinState({ model: model.state(), optimizer: optimizer.state(), rng: rng.state });
  const settings = { recipe: "domain", config: { ...config } as unknown as Json, size, steps, batch, lr: o.lr, seed };
  const run = await openRun(o.out, {
    config: { ...settings, init: o.init ?? null, data: data.fingerprint },
    resume: o.resume,
    adapter: device().name,
    notice: console.error,
  });
  if (o.init && !run.resumed) await loadFeatures(model, o.init);
  await run.restore(state);

  const train = compile(
    ({ pixels, labels, lr }: Record<"pixels" | "labels" | "lr", Tensor>) => {
      const loss = crossEntropy(model.forward(efficientNetInput(pixels), { rng }), labels);
      const { grads, norm } = clipGradNorm(grad(loss, optimizer.targets), 1);
      optimizer.step(grads, { lr });
      return { loss, norm };
    },
    { name: "domain" },
  );
  const sides = DOMAINS.map((domain) => data.train.filter((i) => data.domains[i] === domain));
  const labels = tensor(
    Int32Array.from({ length: batch }, (_, i) => i % DOMAINS.length),
    [batch],
  );

  const log = stepLog(run, { label: "domain", steps, batch, goOn: o.goOn });
  const rate = warmupCosine({ lr: o.lr, warmup: Math.min(20, steps / 10), steps, floor: o.lr / 20 });
  const loader = new Loader({
    read: (k) => {
      const orders = sides.map((side, d) => batchIndices(side.length, batch / 2, k, seed + d).map((i) => side[i]));
      const indices = Array.from({ length: batch }, (_, i) => orders[i % 2][i >> 1]);
      return pictures(data, indices, size, bitsFrom(seed, `pictures ${k}`));
    },
    from: run.step,
    to: steps,
  });
  const interrupt = interruptible();
  const clock = new SaveClock(o.saveEvery);
  let checkpoint = run.resumed;
  try {
    for (let k = run.step; k < steps && !interrupt.requested; k++) {
      const pixels = await loader.next();
      const lr = rate(k);
      const result = train({ pixels, labels, lr });
      const [loss, norm] = await Promise.all([result.loss.item(), result.norm.item()]); // waits for the device
      checkFinite({ loss, "the gradient's norm": norm }, k + 1, run, checkpoint);
      log.step(k + 1, { loss, gradient_norm: norm, lr, stall_ms: loader.stall });
      const due = k + 1 === steps || interrupt.requested || clock.due(k + 1);
      if (due) checkpoint = await clock.time(() => run.save(k + 1, state));
    }
    const report = checkpoint?.step === steps ? await test(model, data, size) : null;
    if (report)
      await replaceFile(join(o.out, REPORT), (file) => file.writeFile(`${JSON.stringify(report, null, 2)}\n`));
    const result = await endStage(run, log, { steps, checkpoint, interrupt, started, baseline: Math.log(2) });
    return { ...result, report };
  } finally {
    interrupt.release();
    await loader.close();
    run.close();
  }
}

/** Everything but the classes, which are others. */
async function loadFeatures(model: EfficientNet, path: string): Promise<void> {
  const features = new Map([...model.state()].filter(([name]) => name.startsWith("features.")));
  const layout = (name: string) => (name.startsWith("classifier.") ? { names: [] } : efficientNetLayout(name));
  await loadForeign(path, features, layout);
}

/** One frame of each sticker, drawn, and every other one mirrored: [b, size, size, 3] from 0 to 255. */
async function pictures(
  data: Labelled,
  indices: readonly number[],
  size: number,
  bits: (i: number) => number,
): Promise<Tensor> {
  const values = 3 * size * size;
  const out = new Float32Array(indices.length * values);
  const clips = await Promise.all(indices.map((index) => data.clip(index)));
  clips.forEach((clip, b) => {
    const frame = clip.subarray((bits(2 * b) % FRAMES) * values);
    const mirrored = bits(2 * b + 1) % 2 === 1;
    for (let p = 0; p < size * size; p++) {
      const from = mirrored ? p - 2 * (p % size) + size - 1 : p;
      for (let c = 0; c < 3; c++) out[b * values + 3 * p + c] = frame[3 * from + c];
    }
  });
  return tensor(out, [indices.length, size, size, 3]);
}

/** Clip [FRAMES, size, size, 3] -> verdict. */
function asking(model: EfficientNet, size: number): (clip: Uint8Array) => Promise<DomainVerdict> {
  const ask = compile(
    ({ pixels }: { pixels: Tensor }) => ({ mean: model.forward(efficientNetInput(pixels)).softmax(-1).mean(0) }),
    { name: "domain classifier" },
  );
  return async (clip) => {
    const { mean } = ask({ pixels: tensor(Float32Array.from(clip), [FRAMES, size, size, 3]) });
    const found = Array.from(await mean.data());
    const score = Math.max(...found);
    return { domain: DOMAINS[found.indexOf(score)], score: Math.round(1e4 * score) / 1e4 };
  };
}

async function test(model: EfficientNet, data: Labelled, size: number): Promise<DomainReport> {
  const ask = asking(model, size);
  const row = (): Record<Domain, number> => ({ Cartoon: 0, Real: 0 });
  const confusion: Record<Domain, Record<Domain, number>> = { Cartoon: row(), Real: row() };
  for (const i of data.test) confusion[data.domains[i]][(await ask(await data.clip(i))).domain]++;
  const right = DOMAINS.reduce((sum, domain) => sum + confusion[domain][domain], 0);
  return { stickers: data.test.length, accuracy: right / data.test.length, confusion };
}

/** Run folders of this recipe, as the stage `domain` asks for them. */
export const domainClassifiers: DomainClassifiers = {
  identity(folder) {
    const path = join(folder, "run.json");
    const record = existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as RunRecord) : null;
    if (record?.finished) return `EfficientNet ${record.finished.sha256.slice(0, 12)}`;
    throw new Error(`${folder} holds no trained classifier: make one with "gifgrad dataset train-domain"`);
  },
  async open(folder) {
    const { config: record, checkpoint } = await readRun(folder);
    if (record.recipe !== "domain") throw new Error(`${folder} holds a run of recipe "${String(record.recipe)}"`);
    const size = Number(record.size);
    const opened = await openDevice();
    const model = new EfficientNet(record.config as unknown as EfficientNetConfig);
    const weights = joinState({ model: model.state() });
    await load(checkpoint.path, weights, { rename: (name) => (name.startsWith("model.") ? name : null) });
    const ask = asking(model, size);
    return {
      classify: async (bytes, where) => ask(await decodeClip(bytes, where, { size, frames: FRAMES })),
      close: () => opened.close(),
    };
  },
};
