// Generating from a trained run: which bytes, which files, which words, and what is said when it cannot be done. The model
// here has seen three steps, so its stickers look like nothing; that they can look like something is overfit.test.ts.

import { existsSync, readFileSync } from "node:fs";
import { appendFile, cp, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type GifOptions, run as generate, generateAll, sampleGifs } from "../cli/generate.ts";
import { diffusionMaker } from "../cli/makers.ts";
import type { GenerateOptions } from "../cli/options.ts";
import { existingStage, stageFolder, trainStage } from "../cli/train.ts";
import { decodeSticker } from "../data/decode/index.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { openClips } from "../eval/clips.ts";
import { presetConfig, systemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { loadSampler, Sampler, type Sticker } from "../train/sample.ts";
import { expectClose } from "./close.ts";
import { gpu, onGpu } from "./device.ts";
import { writeMixedFolder } from "./stickers.ts";

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 }); // the first step of a model compiles its kernels

const config = presetConfig("nano");
const CAPTION = "Cartoon \t a disc, number 3";
const settings = { seed: 7, steps: 3, guidance: 3 };

let folder: string;
let run: string;
let sampler: Sampler;
let written: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-generate-"));
  run = join(folder, "run");
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  vi.spyOn(console, "error").mockImplementation((text) => void written.push(`${text}\n`));
  if (!(await gpu())) return;
  const stickers = join(folder, "stickers");
  await writeMixedFolder(stickers);
  for (const recipe of ["autoencoder", "diffusion"] as const)
    await trainStage({ data: stickers, recipe, preset: "nano", steps: 3, out: run, resume: false, seed: 1, batch: 1 });
  sampler = await loadSampler(stageFolder(run, "diffusion"));
});
afterAll(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

const options = (o: Partial<GenerateOptions>): GenerateOptions => ({
  run,
  captions: [CAPTION],
  ...{ sampler: "ddim", eta: 0, count: 1, batch: 1, fps: 10 },
  ...settings,
  ...o,
});
const pixels = async (caption: string, o: Partial<GifOptions> = {}): Promise<Float32Array> =>
  (await sampler.sample([{ caption, index: 0 }], { ...settings, ...o }))[0];

describe("a sticker", () => {
  onGpu("has eight frames that play for ever, and says in the file how it was made", async () => {
    const [gif] = await sampleGifs(diffusionMaker(sampler), [{ caption: CAPTION, index: 0 }], settings);
    const { width, pageHeight, pages, loop, delay } = await sharp(gif, { animated: true }).metadata();
    expect([width, pageHeight, pages, loop]).toEqual([config.size, config.size, 8, 0]);
    expect(delay).toEqual(new Array(8).fill(100));
    expect((await decodeSticker(gif, "here")).frames).toHaveLength(8);
    expect(Buffer.from(gif).toString("latin1")).toContain("gifgrad Cartoon a disc, number 3 seed 7 steps 3 guidance 3");
  });

  onGpu(
    "is the same bytes for the same seed, whatever was made before it, and others for another seed or caption",
    async () => {
      const make = async (caption: string, o: Partial<GifOptions> = {}): Promise<string> =>
        (await pixels(caption, o)).join();
      const first = await make(CAPTION);
      const others = [
        await make(CAPTION, { seed: 8 }),
        await make("Cartoon \t a cube"),
        await make(CAPTION, { guidance: 1 }),
        await make(CAPTION, { negative: "a cube" }),
        await make(CAPTION, { sampler: "dpm++" }),
        await make(CAPTION, { eta: 1 }),
      ];
      expect(await make(CAPTION)).toBe(first);
      expect(new Set([first, ...others]).size).toBe(7);
      const again = await loadSampler(stageFolder(run, "diffusion"));
      expect((await again.sample([{ caption: CAPTION, index: 0 }], settings))[0].join()).toBe(first);
    },
  );

  onGpu("is the same bits in every company and place of a batch, with fresh noise at every step too", async () => {
    const [cube, disc, other] = ["Cartoon \t a cube", CAPTION, CAPTION].map((caption, index) => ({ caption, index }));
    const make = async (...stickers: Sticker[]): Promise<string[]> =>
      (await sampler.sample(stickers, { ...settings, eta: 1 })).map((clip) => clip.join());
    const [first, second] = [await make(cube, disc, other), await make(disc, disc, cube)];
    expect(new Set(first).size).toBe(3);
    expect([second[0] === first[1], second[1] === first[1], second[2] === first[0]]).toEqual([true, true, true]);
  });

  test("is the same bits alone and in a batch where sums do not depend on sizes: on the reference", async () => {
    useDevice(new ReferenceDevice());
    const text = { vocabulary: 514, width: 8, layers: 1, heads: 2, mlp: 8, length: 8 };
    const autoencoder = { channels: [4, 4], layers: 1, latent: 4, groups: 2 };
    const unet = { channels: [4, 8], headDim: 4, context: 8, groups: 2, transformerIn: { heads: 1, dim: 4 } };
    const nano = systemConfig("make-a-video", "nano");
    const small = { ...nano, size: 8, frames: 2, text, autoencoder, unet: { ...nano.unet, ...unet } };
    const model = new LatentDiffusion(small).seed(1);
    const tiny = new Sampler(model, trainTokenizer(["a cube"], { vocabSize: text.vocabulary }));
    const stickers = ["a cube", "a disc"].map((caption, index) => ({ caption, index }));
    const o = { seed: 1, steps: 2, guidance: 2, sampler: "ddpm" } as const;
    const together = await tiny.sample(stickers, o);
    for (const [i, sticker] of stickers.entries()) {
      const [alone] = await tiny.sample([sticker], o);
      expect(alone.join() === together[i].join(), `sticker ${i}`).toBe(true);
    }
  });

  onGpu("differs by rounding between batch sizes, for which kernels may add in other orders", async () => {
    const sticker = { caption: CAPTION, index: 2 };
    const noisy = { ...settings, eta: 1 };
    const [alone] = await sampler.sample([sticker], noisy);
    const [, , among] = await sampler.sample([sticker, sticker, sticker], noisy);
    expectClose(among, alone, "pixels", { rtol: 1e-4 }); // three steps of a network a hundred layers deep
  });

  onGpu("is made of words that were never trained on, of any script, and of none", async () => {
    for (const caption of ["Real \t zebra 斑马 🦓 Größe", "<|endoftext|>", "x"]) {
      const clip = await pixels(caption, { steps: 1 });
      expect(clip).toHaveLength(8 * config.size ** 2 * 3);
      expect(clip.every(Number.isFinite)).toBe(true);
    }
  });
});

onGpu("25 steps are one trace, one plan and no reading back", async (device) => {
  const traced = vi.spyOn(LatentDiffusion.prototype, "guided");
  const read = vi.spyOn(device, "read");
  const counts: number[] = [];
  const fresh = await loadSampler(stageFolder(run, "diffusion"));
  const onStep = (): void => void counts.push(read.mock.calls.length);
  await fresh.sample([{ caption: CAPTION, index: 0 }], { ...settings, steps: 25, onStep });
  await fresh.sample([{ caption: "x", index: 1 }], { ...settings, seed: 2, guidance: 2, steps: 7 });
  expect(traced).toHaveBeenCalledTimes(1);
  expect(counts).toEqual(new Array(25).fill(counts[0]));
  expect(read.mock.calls.length - counts[0]).toBe(2); // the frames of each
  vi.mocked(traced).mockRestore();
  read.mockRestore();
});

describe("the command", () => {
  const made = async (o: Partial<GenerateOptions>): Promise<string> => {
    written = [];
    await generateAll(diffusionMaker(sampler), options(o));
    return written.join("");
  };

  onGpu("writes where -o says: a file, a folder that need not exist, or the run's own", async () => {
    const file = join(folder, "new", "heart.gif");
    expect(await made({ out: file })).toMatch(/Cartoon a disc, number 3 {2}3\/3 {2}in .*new\/heart\.gif\n$/);
    await made({ out: join(folder, "out"), captions: [CAPTION, "猫 Cat!", "cat? 猫", "Cat - 猫"] });
    expect((await readdir(join(folder, "out"))).sort()).toEqual(
      ["cartoon-a-disc-number-3-7.gif", "metadata.jsonl", "猫-cat-7.gif", "cat-猫-7.gif", "cat-猫-7-2.gif"].sort(),
    );
    await made({});
    const paths = [
      file,
      join(folder, "out", "cartoon-a-disc-number-3-7.gif"),
      join(run, "generated", "cartoon-a-disc-number-3-7.gif"),
    ];
    expect(new Set(paths.map((path) => readFileSync(path, "latin1"))).size).toBe(1);
  });

  onGpu(
    "lists what it made in the folder's metadata.jsonl, where nothing is lost and evaluation finds the captions",
    async () => {
      const out = join(folder, "listed");
      await mkdir(out);
      await appendFile(join(out, "metadata.jsonl"), '{"file_name": "mine.gif", "caption": "mine"}\nno JSON');
      const lines = (): string[] => readFileSync(join(out, "metadata.jsonl"), "utf8").split("\n");
      await made({ out, captions: [CAPTION], count: 2, batch: 2 });
      const record = { caption: "a disc, number 3", domain: "Cartoon", system: "sti", ...settings, index: 0 };
      const [mine, broken, first, second, end] = lines();
      expect([mine, broken, end]).toEqual(['{"file_name": "mine.gif", "caption": "mine"}', "no JSON", ""]);
      expect(JSON.parse(first)).toEqual({ file_name: "cartoon-a-disc-number-3-7.gif", ...record });
      expect(JSON.parse(second)).toEqual({ file_name: "cartoon-a-disc-number-3-7-2.gif", ...record, index: 1 });
      await made({ out, captions: [CAPTION, "猫"], steps: 1 }); // the first is written over, and so is its line
      const names = lines().map((line) => /"file_name":\s*"([^"]*)"/.exec(line)?.[1]);
      expect(names).toEqual([
        "mine.gif",
        undefined,
        ...["-2.gif", ".gif"].map((end) => `cartoon-a-disc-number-3-7${end}`),
        "猫-7.gif",
        undefined,
      ]);
      expect(JSON.parse(lines()[3])).toMatchObject({ steps: 1 });
      const clean = join(folder, "clean");
      await made({ out: clean, captions: [CAPTION] });
      const clips = await openClips(clean);
      expect([clips.names, clips.captions]).toEqual([["cartoon-a-disc-number-3-7.gif"], ["a disc, number 3"]]);
      clips.close();
    },
  );

  onGpu("says what of a caption that is too long is read", async () => {
    const out = join(folder, "long");
    const said = await made({ out, captions: [`a disc ${"number ".repeat(100)}`], steps: 1 });
    expect(said).toMatch(/this caption is too long for the model, which reads only: a disc( number)+/);
    expect(await made({ out, captions: ["a disc"], steps: 1 })).not.toMatch(/too long/);
  });
});

describe("what cannot be generated from is named in one line:", () => {
  const message = async (dir: string): Promise<string> => {
    const error = await generate(options({ run: dir })).catch((e: Error) => e);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).not.toContain("\n");
    return (error as Error).message;
  };

  test("a folder without a run, and the command that makes one", async () => {
    const path = join(folder, "nothing");
    expect(await message(path)).toBe(
      `${path} does not exist, and so holds no diffusion: train one with gifgrad train <data> --out ${path}`,
    );
    expect(existsSync(path)).toBe(false);
  });

  onGpu("a stage's folder instead of the run's, and a run of another recipe", async () => {
    expect(await message(stageFolder(run, "diffusion"))).toBe(
      `${stageFolder(run, "diffusion")} is one stage of a run: give the run folder, ${run}`,
    );
    await expect(loadSampler(stageFolder(run, "autoencoder"))).rejects.toThrow(/holds a run of recipe "autoencoder"/);
    expect(existingStage(run, "autoencoder")).toBe(stageFolder(run, "autoencoder"));
  });

  onGpu("a run without a whole checkpoint; an unfinished one with a checkpoint will do, with a word", async () => {
    const unfinished = join(folder, "unfinished");
    await cp(run, unfinished, { recursive: true });
    const dir = stageFolder(unfinished, "diffusion");
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as object;
    await rm(join(dir, "config.json"));
    await appendFile(join(dir, "config.json"), JSON.stringify({ ...config, steps: 9 }));
    const told: string[] = [];
    await loadSampler(dir, (text) => told.push(text));
    expect(told).toEqual([`${dir} is not finished: sampling from step 3 of 9`]);
    for (const checkpoint of await readdir(join(dir, "checkpoints")))
      await appendFile(join(dir, "checkpoints", checkpoint, "state.safetensors"), "x");
    expect(await message(unfinished)).toMatch(/has no complete checkpoint yet: train it further with --resume$/);
  });
});
