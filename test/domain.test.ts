// The classifier of domains: EfficientNet's names, sizes and layers as torchvision has them, labelled folders, and the stage that
// asks a classifier and remembers which one it asked.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { type Collection, createCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { filterTable, recordsTable } from "../data/curate/derived.ts";
import { runStage } from "../data/curate/stage.ts";
import type { DomainClassifiers } from "../data/curate/stages/domain.ts";
import { stages } from "../data/curate/stages/index.ts";
import { table, withDatabase } from "../data/curate/tables.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { openLabelled } from "../data/labelled.ts";
import { Rng, tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { EFFICIENTNET_B0, EfficientNet, efficientNetInput, efficientNetLayout } from "../models/efficientnet.ts";
import { discFrames } from "./stickers.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-domain-"));
  if (stale()) await build(); // the decoding processes run the built worker
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const gif = (seed: number): Uint8Array => encodeGif(discFrames([(40 * seed) % 256, 90, 200], seed), 40, 40);

describe("EfficientNet-B0", () => {
  it("has the parameters of the published network under torchvision's names", () => {
    const model = new EfficientNet(EFFICIENTNET_B0);
    // Tan & Le report 5.3 million; torchvision counts 5 288 548.
    expect(model.parameters().reduce((sum, p) => sum + p.shape.reduce((a, b) => a * b, 1), 0)).toBe(5_288_548);
    const shapes = new Map([...model.state()].map(([name, { shape }]) => [name, [...shape]]));
    expect(shapes.get("features.0.0.weight")).toEqual([3, 3, 3, 32]);
    expect(shapes.get("features.1.0.block.0.0.weight")).toEqual([3, 3, 1, 32]); // no widening: depthwise at once
    expect(shapes.get("features.1.0.block.1.fc1.weight")).toEqual([1, 1, 32, 8]);
    expect(shapes.get("features.3.1.block.1.0.weight")).toEqual([5, 5, 1, 240]);
    expect(shapes.get("features.7.0.block.3.1.running_var")).toEqual([320]);
    expect(shapes.get("features.8.0.weight")).toEqual([1, 1, 320, 1280]);
    expect(shapes.get("classifier.1.bias")).toEqual([1000]);
    expect(efficientNetLayout("features.0.1.num_batches_tracked").names).toEqual([]);
  });

  it("answers each picture for itself, and in training draws what it leaves out", async () => {
    useDevice(new ReferenceDevice());
    const model = new EfficientNet({ ...EFFICIENTNET_B0, classes: 2, width: 0.25 }).seed(1);
    // Fresh weights shrink the picture from layer to layer; norms that have not seen any data do not bring it back.
    for (const [name, p] of model.state()) if (/\.1\.weight$/.test(name) && p.shape.length === 1) p.assign(p.mul(4));
    const pixels = new Rng(1).uniform([2, 16, 16, 3]).mul(255);
    const both = await model.forward(efficientNetInput(pixels)).data();
    const second = await model.forward(efficientNetInput(pixels.slice(0, 1, 2))).data();
    expect(both.length).toBe(4);
    for (const c of [0, 1]) expect(both[2 + c]).toBeCloseTo(second[c], 10);
    expect(both[0]).not.toBeCloseTo(both[2], 10);
    const rng = new Rng(2);
    const trained = [
      await model.forward(efficientNetInput(pixels), { rng }).data(),
      await model.forward(efficientNetInput(pixels), { rng }).data(),
    ];
    expect(trained[0]).not.toEqual(trained[1]);
    // ImageNet's mean colour is zero to the network.
    const grey = tensor(
      [0.485, 0.456, 0.406].map((v) => 255 * v),
      [1, 1, 1, 3],
    );
    for (const value of await efficientNetInput(grey).data()) expect(value).toBeCloseTo(0, 6);
    useDevice(null);
  });
});

describe("labelled stickers", () => {
  it("come from two folders, the same ones held out each time", async () => {
    const path = join(dir, "labelled");
    for (const domain of ["cartoon", "Real"]) {
      await mkdir(join(path, domain), { recursive: true });
      for (let i = 0; i < 12; i++)
        await writeFile(join(path, domain, `${i}.gif`), gif(i + (domain === "Real" ? 100 : 0)));
    }
    await writeFile(join(path, "cartoon", "bad.gif"), "not a picture");
    const o = { size: 16, frames: 3, heldOut: 0.3 };
    const [first, again] = [await openLabelled(path, o), await openLabelled(path, o)];
    expect(first.domains.filter((domain) => domain === "Real")).toHaveLength(12);
    expect(first.train.length + first.test.length).toBe(24);
    expect(first.test).toEqual(again.test);
    expect(first.fingerprint).toBe(again.fingerprint);
    expect(await first.clip(0)).toHaveLength(3 * 16 * 16 * 3);
    expect(first.rejected).toMatchObject([{ file_name: join("cartoon", "bad.gif") }]);
    first.close();
    again.close();
    await expect(openLabelled(join(path, "Real"), o)).rejects.toThrow(/has no labels: folders "cartoon" and "real"/);
    await expect(openLabelled(path, { ...o, heldOut: 0 })).rejects.toThrow(/too few Cartoon stickers/);
  });
});

describe("the stage domain", () => {
  /** Told by its weights: the same answer for every sticker. */
  const classifiers = (weights: string, asked: string[]): DomainClassifiers => ({
    identity: (folder) => `${folder} ${weights}`,
    open: async () => ({
      classify: async (bytes, where) => {
        asked.push(where);
        if (bytes.length === 0) throw new Error("empty");
        return { domain: "Real", score: 0.75 };
      },
      close: () => {},
    }),
  });

  async function made(name: string, domainModel?: string): Promise<Collection> {
    const path = join(dir, name);
    await mkdir(path, { recursive: true });
    for (const i of [1, 2, 3]) await writeFile(join(path, `${i}.gif`), gif(i));
    await writeFile(join(path, "metadata.jsonl"), '{"file_name": "1.gif", "caption": "a disc", "domain": "Cartoon"}\n');
    const config = { sources: [{ type: "folder", name: "f", path: name }], annotate: { domainModel }, filter: FILTER };
    const c = await createCollection(join(dir, `${name}-set`), parseConfig(config, "test", dir));
    for (const stage of stages().before) await runStage(c, stage);
    await filterTable(c);
    return c;
  }
  const FILTER = { minEntropy: 0, nearDuplicateBits: -1 };

  it("asks about what no source has told, once per sticker and model, and the records take it", async () => {
    const c = await made("told", "model");
    const asked: string[] = [];
    const run = (weights: string) =>
      runStage(c, stages(classifiers(weights, asked)).all.find(({ name }) => name === "domain")!);
    expect(await run("first")).toMatchObject({ items: 2, done: 2 });
    expect(await run("first")).toMatchObject({ done: 0, before: 2 });
    expect(await run("second")).toMatchObject({ done: 2 });
    expect(asked).toHaveLength(4);
    await recordsTable(c);
    const rows = await withDatabase((db) => db.all(`SELECT domain FROM ${table(c, "records")} ORDER BY domain`));
    expect(rows.map(({ domain }) => domain)).toEqual(["Cartoon", "Real", "Real"]);
    const [row] = await withDatabase((db) => db.all(`SELECT * FROM ${table(c, "domain")} LIMIT 1`));
    expect(row).toMatchObject({ domain: "Real", score: 0.75, model: `${join(dir, "model")} second`, error: null });
  });

  it("does nothing without a model", async () => {
    const c = await made("untold");
    expect(await runStage(c, stages().after[0])).toMatchObject({ items: 0, done: 0, sealed: true });
  });
});
