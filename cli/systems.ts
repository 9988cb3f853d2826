// `gifgrad systems`: trains the six systems of the paper's Table 4, one after another, for minutes each on the stickers of the
// demonstration, samples every one of them, and leaves a table, a page and the GIFs. It shows that all of them learn; what
// they could draw takes the larger presets and days.

import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { countSystem, SYSTEMS, type System } from "../models/systems.ts";
import { exitCode } from "../train/log.ts";
import { progress } from "../train/progress.ts";
import { type Curve, type Picture, renderReport } from "../train/report.ts";
import type { StageResult } from "../train/stage.ts";
import { captionOf, claimFolder, makeStickers, SAMPLED } from "./demo.ts";
import { sampleGifs } from "./generate.ts";
import { openMaker } from "./makers.ts";
import type { Recipe, SystemsOptions } from "./options.ts";
import { announce, type StageOptions, stageFolder, trainStage } from "./train.ts";

/** Two of the captions that `gifgrad start` samples, and the one it has never trained on. */
const CAPTIONS = [SAMPLED[0], SAMPLED[1], SAMPLED[3]].map(captionOf);
const SAMPLING = { steps: 25, guidance: 1.5, sampler: "ddim" } as const;

/** What became of one system. */
interface Row {
  readonly system: System;
  readonly parameters: number;
  /** Its stages in order, those that it shares with others not among them. */
  readonly stages: readonly { readonly recipe: Recipe; readonly result: StageResult }[];
  readonly seconds: { readonly training: number; readonly sampling: number };
  readonly pictures: readonly Picture[];
}

export async function run(o: SystemsOptions): Promise<void> {
  const began = performance.now();
  const late = (): boolean => o.minutes !== undefined && performance.now() - began > 60_000 * o.minutes;
  const chosen = SYSTEMS.filter(({ name }) => !o.system || o.system.includes(name));
  const device = await openDevice();
  try {
    announce(device);
    const data = join(o.out, "stickers");
    await claimFolder(o.out, "systems", [
      data,
      stageFolder(o.out, "autoencoder"),
      ...SYSTEMS.map((s) => join(o.out, s.name)),
    ]);
    await makeStickers(data, o.seed);
    const rows: Row[] = [];
    if (chosen.some(({ stages }) => stages.includes("autoencoder"))) {
      const shared = await stage("autoencoder", o, { data, out: o.out });
      if (interrupted(shared)) return;
    }
    for (const system of chosen) {
      if (late()) {
        console.error(`${system.title}: left out, because the ${o.minutes} minutes are over`);
        continue;
      }
      const row = await trainOne(system, o, data);
      if (!row) return;
      rows.push(row);
      console.error(sentence(row));
    }
    await writeResults(o, rows, device.name);
  } finally {
    device.close();
  }
}

/** A stage at the command's preset. First stages have twice the steps, which are several times as quick. */
function stage(
  recipe: Recipe,
  { preset, steps, seed }: SystemsOptions,
  o: Pick<StageOptions, "data" | "out" | "system" | "autoencoder">,
): Promise<StageResult> {
  const first = recipe === "autoencoder" || recipe === "vqvae";
  return trainStage(
    { ...o, recipe, preset, seed, steps: first ? 2 * steps : steps, resume: false },
    "give the same command again: it begins anew",
  );
}

/** Whether Ctrl-C ended a stage; sets the exit code. */
function interrupted({ stopped }: StageResult): boolean {
  if (stopped) process.exitCode = exitCode(stopped);
  return stopped !== null;
}

/** Trains and samples one system; null after an interrupt. */
async function trainOne(system: System, o: SystemsOptions, data: string): Promise<Row | null> {
  const { name, title } = system;
  console.error(`${title}:`);
  const out = join(o.out, name);
  const stages: { recipe: Recipe; result: StageResult }[] = [];
  let t0 = performance.now();
  const seconds = (): number => {
    const passed = (performance.now() - t0) / 1000;
    t0 = performance.now();
    return Math.round(10 * passed) / 10;
  };
  for (const recipe of system.stages.filter((recipe) => recipe !== "autoencoder") as Recipe[]) {
    const result = await stage(recipe, o, { data, out, system: name, autoencoder: o.out });
    if (interrupted(result)) return null;
    stages.push({ recipe, result });
  }
  const training = seconds();
  const maker = await openMaker(out);
  const stickers = CAPTIONS.map((caption, index) => ({ caption, index }));
  const line = progress(`${stickers.length} stickers`, maker.steps(stickers.length, { ...SAMPLING, seed: o.seed }));
  const gifs = await sampleGifs(maker, stickers, { ...SAMPLING, seed: o.seed, onStep: (done) => line.update(done) });
  const folder = join(out, "generated");
  await mkdir(folder, { recursive: true });
  for (const [i, gif] of gifs.entries()) await replaceFile(join(folder, `${i + 1}.gif`), (file) => file.writeFile(gif));
  line.done(folder);
  const pictures = gifs.map((gif, i) => ({ caption: CAPTIONS[i], gif }));
  const parameters = countSystem(system, o.preset).total;
  return { system, parameters, stages, seconds: { training, sampling: seconds() }, pictures };
}

const figure = (x: number): string => x.toPrecision(3);

/** "STI: diffusion 0.83 -> 0.41 (the mean scores 0.65); 3 GIFs; 81 s + 9 s" */
function sentence({ system, stages, seconds, pictures }: Row): string {
  const losses = stages.map(
    ({ recipe, result: r }) =>
      `${recipe} ${figure(r.firstLoss)} -> ${figure(r.lastLoss)} (the mean scores ${figure(r.baseline)})`,
  );
  return `${system.title}: ${losses.join(", ")}; ${pictures.length} GIFs; ${seconds.training} s + ${seconds.sampling} s`;
}

/** The table on standard output, systems.json and report.html. */
async function writeResults(o: SystemsOptions, rows: readonly Row[], adapter: string): Promise<void> {
  console.log(
    "| system | parameters | stage | steps | loss, first to last | the mean scores | training | 3 stickers |",
  );
  console.log("|---|---|---|---|---|---|---|---|");
  for (const { system, parameters, stages, seconds } of rows)
    for (const [i, { recipe, result: r }] of stages.entries()) {
      const own = i === 0 ? [system.title, parameters.toLocaleString("en")] : ["", ""];
      const loss = `${figure(r.firstLoss)} to ${figure(r.lastLoss)}`;
      const sampled = i === stages.length - 1 ? `${seconds.sampling.toFixed(0)} s` : "";
      const cells = [...own, recipe, r.steps, loss, figure(r.baseline), `${r.seconds.toFixed(0)} s`, sampled];
      console.log(`| ${cells.join(" | ")} |`);
    }
  const record = rows.map(({ system, parameters, stages, seconds }) => ({
    system: system.name,
    parameters,
    seconds,
    stages: stages.map(({ recipe, result: { losses: _, ...rest } }) => ({ recipe, ...rest })),
  }));
  const json = JSON.stringify({ adapter, preset: o.preset, seed: o.seed, systems: record }, null, 2);
  await replaceFile(join(o.out, "systems.json"), (file) => file.writeFile(`${json}\n`));
  const curves = rows.flatMap(({ system, stages }) =>
    stages.map(
      ({ recipe, result }): Curve => ({
        title: `${system.title}: ${recipe}`,
        baseline: result.baseline,
        points: result.losses,
      }),
    ),
  );
  const page = renderReport({
    title: "Gifgrad: the six systems",
    facts: [
      ["adapter", adapter],
      ["preset", o.preset],
      ["seed", String(o.seed)],
      ["sampling", `DDIM, ${SAMPLING.steps} steps, guidance ${SAMPLING.guidance}; VideoGPT: code by code`],
    ],
    curves,
    galleries: rows.map(({ system, pictures }) => ({ title: system.title, pictures })),
  });
  await replaceFile(join(o.out, "report.html"), (file) => file.writeFile(page));
  console.error(`report: ${resolve(o.out, "report.html")}`);
}
