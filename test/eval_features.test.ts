// Networks trained on a data set itself, to score with where no published weights are at hand: the judge of quality learns to
// see blur and blocks in stickers that it was not trained on; what is written is what is read, and nothing else is accepted.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openScorers } from "../cli/eval_weights.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import type { Clips } from "../eval/clips.ts";
import { DEGRADATIONS, type Degradation } from "../eval/degrade.ts";
import { drawing } from "../eval/draw.ts";
import { holdsUnfinished, OwnCheckpoints } from "../eval/own_checkpoint.ts";
import { ownExtractor } from "../eval/own_extractors.ts";
import { holdsOwn, openOwn, saveOwn } from "../eval/own_weights.ts";
import { METRICS } from "../eval/score.ts";
import {
  OWN_NETWORKS,
  type OwnNetwork,
  type OwnNetworks,
  ownClipConfig,
  trainFeatures,
  trainQuality,
} from "../eval/train_features.ts";
import { vqaScore } from "../eval/vqa_score.ts";
import { Clip } from "../models/clip.ts";
import { VideoFeatures } from "../models/video_features.ts";
import { onGpu } from "./device.ts";

const dir = mkdtempSync(join(tmpdir(), "gifgrad-own-"));
afterAll(() => rmSync(dir, { recursive: true }));

const [SIZE, FRAMES] = [16, 4];

/** Rings of two colours that move, in memory; thin and round, sharp everywhere. */
function rings(count: number, first: number, how: Degradation = "none", strength = 0): Clips {
  const clip = (i: number): Uint8Array => {
    const draw = drawing(first + i, "rings");
    const [x0, y0, wide, speed] = [draw(SIZE), draw(SIZE), 1.5 + draw(3) / 2, 1 + draw(2)];
    const colours = [0, 1].map((light) => [0, 1, 2].map(() => 160 * light + draw(96)));
    return Uint8Array.from({ length: FRAMES * SIZE * SIZE * 3 }, (_, k) => {
      const pixel = Math.floor(k / 3);
      const [x, y, t] = [pixel % SIZE, Math.floor(pixel / SIZE) % SIZE, Math.floor(pixel / SIZE ** 2)];
      return colours[Math.floor((Math.hypot(x - x0, y - y0) + speed * t) / wide) % 2][k % 3];
    });
  };
  return {
    dir: "rings",
    length: count,
    names: Array.from({ length: count }, (_, i) => `${first + i}.gif`),
    captions: null,
    size: SIZE,
    frames: FRAMES,
    sha256: `${first} ${how} ${strength}`,
    rejected: [],
    read: async (i) => DEGRADATIONS[how](clip(i), { size: SIZE, strength, draw: drawing(i, "spoil") }),
    close: () => {},
  };
}

onGpu("VQA-x falls with blur and with blocks in stickers that were not trained on", async () => {
  const [model, [first, last]] = await trainQuality(rings(32, 0), { steps: 200, batch: 8, seed: 1 });
  expect(last).toBeLessThan(first);
  const judge = ownExtractor(model, "trained", "score");
  const score = async (how: Degradation, strength: number): Promise<number> =>
    (await vqaScore(rings(16, 100, how, strength), null, judge, { seed: 1, published: false, batch: 16 })).value;
  const clean = await score("none", 0);
  for (const how of ["blur", "blocks"] as const) {
    const [half, whole] = [await score(how, 0.5), await score(how, 1)];
    expect(clean).toBeGreaterThan(half + 0.1);
    expect(half).toBeGreaterThan(whole);
  }
});

onGpu("a training that is stopped at any step goes on to the same bits, and not with other options", async () => {
  const clips: Clips = { ...rings(8, 0), captions: Array.from({ length: 8 }, (_, i) => `a ring of ${i} colours`) };
  const o = { steps: 4, batch: 2, seed: 1 };
  const bits = async (own: OwnNetworks): Promise<string> => {
    const data = await Promise.all(OWN_NETWORKS.flatMap((n) => [...own[n].state().values()]).map((p) => p.data()));
    return `${JSON.stringify(own.losses)} ${data.map((values) => Buffer.from(values.buffer).toString("base64")).join()}`;
  };
  const whole = await bits(await trainFeatures(clips, o));
  const out = join(dir, "stopped");
  const checkpoints = new OwnCheckpoints(out, { ...o });
  const until = (at: OwnNetwork, last: number) =>
    trainFeatures(clips, {
      ...o,
      ...{ checkpoints, every: 2 },
      onStep: (network, step) => {
        if (network === at && step === last) throw new Error("stopped");
      },
    });
  expect(holdsUnfinished(out, OWN_NETWORKS)).toBe(false);
  await expect(until("video", 3)).rejects.toThrow("stopped");
  expect(readdirSync(out)).toEqual(["video.unfinished.safetensors"]);
  await expect(until("clip", 4)).rejects.toThrow("stopped");
  const taken: string[] = [];
  const own = await trainFeatures(clips, { ...o, checkpoints, onStep: (...step) => void taken.push(step.join()) });
  expect(taken).toEqual([]); // the last step of the last network was kept before the stop
  expect((await bits(own)) === whole).toBe(true);
  await expect(trainFeatures(clips, { ...o, checkpoints: new OwnCheckpoints(out, { ...o, seed: 2 }) })).rejects.toThrow(
    /video\.unfinished\.safetensors is of a training with seed 1, not 2/,
  );
  await checkpoints.clear(OWN_NETWORKS);
  expect(readdirSync(out)).toEqual([]);
});

describe("kept networks", () => {
  test("come back as they were; a file of another training is refused by name", async () => {
    useDevice(new ReferenceDevice());
    const config = { size: SIZE, frames: FRAMES, width: 2, features: 4, outputs: 1 };
    const tokenizer = trainTokenizer(["a red heart"], { vocabSize: 600 });
    const own = {
      video: new VideoFeatures({ ...config, outputs: 9 }).seed(1),
      quality: new VideoFeatures(config).seed(2),
      clip: new Clip(ownClipConfig(tokenizer.vocabSize)).seed(3),
      tokenizer,
      losses: { video: [2, 1], quality: [2, 1], clip: [2, 1] },
    } as const;
    expect(holdsOwn(dir)).toBe(false);
    await saveOwn(dir, own, { seed: 1 });
    const kept = await openOwn(dir);
    const [{ model: quality }, { model: video }, clip] = [await kept.quality(), await kept.video(), await kept.clip()];
    expect(quality.config).toEqual(config);
    expect(video.config.outputs).toBe(9);
    expect(await quality.head.weight.data()).toEqual(await own.quality.head.weight.data());
    expect(clip.tokenizer.encode("a red heart")).toEqual(tokenizer.encode("a red heart"));
    const path = join(dir, "quality.safetensors");
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] ^= 1;
    writeFileSync(path, bytes);
    const refusal = /quality\.safetensors is not the file that features\.json speaks of/;
    await expect((await openOwn(dir)).quality()).rejects.toThrow(refusal);
    const options = { generated: [], real: "", weights: dir, metrics: [...METRICS], frames: FRAMES, batch: 2, seed: 1 };
    const opened = await openScorers({ ...options, extension: "loop", fvdFrames: 16, json: false });
    expect([opened.fvd, opened.clip, opened.vqa].map((scorer) => scorer !== undefined)).toEqual([true, true, false]);
    expect(opened.unusable).toEqual({ vqa: expect.stringMatching(refusal) });
    writeFileSync(join(dir, "features.json"), "{");
    await expect(openOwn(dir)).rejects.toThrow(/features\.json is not JSON/);
  });
  test("are not trained without captions, or with one caption", async () => {
    const o = { steps: 1, batch: 2, seed: 1 };
    await expect(trainFeatures(rings(4, 0), o)).rejects.toThrow("has no metadata.jsonl with captions");
    const same = { ...rings(4, 0), captions: ["a", "a", "a", "a"] };
    await expect(trainFeatures(same, o)).rejects.toThrow("the captions are all the same");
  });
});
