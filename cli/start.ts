// `gifgrad start` (npm start): the main job from nothing to a report page, in minutes: starter stickers, autoencoder,
// diffusion model, four sampled captions. Every part is a command of its own; this file only puts them in a row.

import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { sha256, sha256Json } from "../data/hash.ts";
import type { StickerRecord } from "../data/record.ts";
import { replaceFile } from "../engine/atomic.ts";
import { type Device, openDevice } from "../engine/index.ts";
import { exitCode } from "../train/log.ts";
import { progress } from "../train/progress.ts";
import { type Picture, renderReport } from "../train/report.ts";
import type { StageResult } from "../train/stage.ts";
import { ACTIONS, captionOf, claimFolder, HELD_OUT, makeStickers, SAMPLED, SUBJECTS } from "./demo.ts";
import { sampleGifs } from "./generate.ts";
import { openMaker } from "./makers.ts";
import { RECIPES, type Recipe, type StartOptions, type TrainOptions } from "./options.ts";
import { announce, type StageOptions, stageFolder, trainStage } from "./train.ts";

const PRESET = "nano";
const STEPS = { autoencoder: 300, diffusion: 260 };
const GUIDANCE = 1.5;
const DDIM_STEPS = 25;

interface Generated extends Picture {
  readonly file: string;
  readonly trained: boolean;
}

/** Runs a part of the job and keeps its seconds. */
type Timed = <T>(stage: string, work: () => Promise<T>) => Promise<T>;

export async function run({ out, seed }: StartOptions): Promise<void> {
  const began = performance.now();
  const seconds: Record<string, number> = {};
  const timed: Timed = async (stage, work) => {
    const t0 = performance.now();
    const result = await work();
    seconds[stage] = Math.round(performance.now() - t0) / 1000;
    console.error(`${stage}: ${seconds[stage].toFixed(1)} s`);
    return result;
  };
  const device = await openDevice();
  try {
    announce(device);
    const stickers = join(out, "stickers");
    await claimFolder(out, "start", [...RECIPES.map((recipe) => stageFolder(out, recipe)), stickers]);
    const records = await timed("starter set", () => makeStickers(stickers, seed));
    const stages = await trainStages({ data: stickers, out, seed }, timed);
    if (!stages) return;
    const generated = await timed("sampling", () => sample(out, seed));
    seconds.total = Math.round(performance.now() - began) / 1000;
    await writeResults(out, { seed, device, seconds, records, stages, generated });
  } finally {
    device.close();
  }
}

/** Both stages; null after an interrupt, with the exit code set: what would follow has no finished model to work with. */
async function trainStages(
  o: Pick<TrainOptions, "data" | "out" | "seed">,
  timed: Timed,
): Promise<Results["stages"] | null> {
  const results = new Map<Recipe, StageResult>();
  for (const recipe of RECIPES) {
    const options: StageOptions = { ...o, recipe, preset: PRESET, steps: STEPS[recipe], resume: false };
    const goOn = `finish this stage alone with\n  ${trainCommand(options)}`;
    const result = await timed(recipe, () => trainStage(options, goOn));
    results.set(recipe, result);
    if (result.stopped) {
      console.error("interrupted: what follows was not done; the same start command begins anew");
      process.exitCode = exitCode(result.stopped);
      return null;
    }
  }
  return Object.fromEntries(results) as unknown as Results["stages"];
}

/** What `gifgrad train` is called with to do the same. */
function trainCommand(o: StageOptions): string {
  return `npx gifgrad train ${o.data} --recipe ${o.recipe} --preset ${o.preset} --steps ${o.steps} --out ${o.out} --seed ${o.seed} --resume`;
}

async function sample(out: string, seed: number): Promise<Generated[]> {
  const maker = await openMaker(out);
  const folder = join(out, "generated");
  await mkdir(folder, { recursive: true });
  const captions = SAMPLED.map(captionOf);
  const line = progress(`${captions.length} stickers`, DDIM_STEPS);
  const gifs = await sampleGifs(
    maker,
    captions.map((caption, index) => ({ caption, index })), // noise of its own: else all would share their composition
    { seed, steps: DDIM_STEPS, guidance: GUIDANCE, onStep: (done) => line.update(done) },
  );
  line.done(folder);
  const made: Generated[] = [];
  for (const [i, pair] of SAMPLED.entries()) {
    const file = join(folder, `${pair.subject.replaceAll(" ", "-")}-${pair.action}.gif`);
    await replaceFile(file, (handle) => handle.writeFile(gifs[i]));
    const trained = pair !== HELD_OUT;
    made.push({ caption: captions[i], note: trained ? undefined : "never trained on", gif: gifs[i], file, trained });
  }
  return made;
}

interface Results {
  readonly seed: number;
  readonly device: Device;
  readonly seconds: Readonly<Record<string, number>>;
  readonly records: readonly StickerRecord[];
  readonly stages: Readonly<Record<"autoencoder" | "diffusion", StageResult>>;
  readonly generated: readonly Generated[];
}

/** run.json and report.html, and a last word on where they are. */
async function writeResults(out: string, r: Results): Promise<void> {
  const stage = ({ losses: _, ...rest }: StageResult): object => rest;
  const record = {
    seed: r.seed,
    adapter: r.device.details(),
    preset: PRESET,
    seconds: r.seconds,
    stickers: { count: r.records.length, sha256: sha256Json(r.records) },
    stages: { autoencoder: stage(r.stages.autoencoder), diffusion: stage(r.stages.diffusion) },
    sampling: { ddimSteps: DDIM_STEPS, guidance: GUIDANCE },
    generated: r.generated.map(({ caption, file, gif, trained }) => ({
      caption,
      file,
      trained,
      bytes: gif.length,
      sha256: sha256(gif),
    })),
    checkpoints: { autoencoder: r.stages.autoencoder.sha256, diffusion: r.stages.diffusion.sha256 },
  };
  await replaceFile(join(out, "run.json"), (file) => file.writeFile(`${JSON.stringify(record, null, 2)}\n`));
  const page = renderReport(await reportContent(out, r));
  await replaceFile(join(out, "report.html"), (file) => file.writeFile(page));
  console.log(`report: ${resolve(out, "report.html")}`);
  console.log(`record: ${resolve(out, "run.json")}`);
  console.log(`GIFs:   ${resolve(out, "generated")}`);
}

async function reportContent(out: string, r: Results): Promise<Parameters<typeof renderReport>[0]> {
  const { autoencoder, diffusion } = r.stages;
  const training = await Promise.all(
    r.records.slice(0, 12).map(
      async (record): Promise<Picture> => ({
        caption: record.caption,
        gif: await readFile(join(out, "stickers", record.file_name)),
      }),
    ),
  );
  return {
    title: "Gifgrad: stickers from text",
    facts: [
      ["adapter", `${r.device.name} (${r.device.details().kind})`],
      ["seed", String(r.seed)],
      ["model", `STI latent video diffusion, preset ${PRESET}`],
      ["what to expect", "minutes on two CPU cores teach it subjects and colours; motion and unseen pairs take longer"],
      ["training stickers", `${r.records.length} of ${SUBJECTS.length} subjects and ${ACTIONS.length} actions`],
      [
        "seconds",
        Object.entries(r.seconds)
          .map(([k, v]) => `${k} ${v.toFixed(0)}`)
          .join(", "),
      ],
    ],
    curves: [
      { title: "autoencoder: squared error", baseline: autoencoder.baseline, points: autoencoder.losses },
      { title: "diffusion: squared error of the prediction", baseline: diffusion.baseline, points: diffusion.losses },
    ],
    galleries: [
      { title: "Trained on (some of them)", pictures: training },
      { title: "Generated", pictures: r.generated },
    ],
  };
}
