// The small parts that recipes share, against definitions written out here: the order of records, learning rates, the loss of
// a constant answer, the report page, and the self-check finding an op that computes the wrong thing.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Dataset } from "../data/store.ts";
import { openDevice, selfCheck, useDevice, zeros } from "../engine/index.ts";
import { neg } from "../engine/ops/elementwise.ts";
import { NoiseSchedule } from "../models/diffusion.ts";
import { meanFrameLoss } from "../train/autoencoder.ts";
import { constantLoss } from "../train/latents.ts";
import { batchIndices } from "../train/order.ts";
import { renderReport } from "../train/report.ts";

describe("the order of records", () => {
  test("every epoch is a permutation, whatever the batch", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(1000),
        (records, batch, seed) => {
          const places = Array.from({ length: Math.ceil((3 * records) / batch) }, (_, k) =>
            batchIndices(records, batch, k, seed),
          ).flat();
          for (let epoch = 0; epoch < 3; epoch++) {
            const seen = places.slice(epoch * records, (epoch + 1) * records);
            expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: records }, (_, i) => i));
          }
        },
      ),
      { numRuns: 60, seed: 1 },
    );
  });

  test("a step's records follow from the step alone, and epochs differ", () => {
    const asked = batchIndices(30, 4, 11, 5);
    batchIndices(30, 4, 2, 5);
    expect(batchIndices(30, 4, 11, 5)).toEqual(asked);
    expect(batchIndices(30, 30, 0, 5)).not.toEqual(batchIndices(30, 30, 1, 5));
    expect(batchIndices(30, 30, 0, 5)).not.toEqual(batchIndices(30, 30, 0, 6));
  });
});

describe("the loss of a constant answer", () => {
  test("for v equals the variance of v, computed sample by sample", () => {
    const schedule = new NoiseSchedule({ steps: 50 });
    const data = [
      [2, -1],
      [0, 1],
      [1, 3],
    ]; // three clips of two latent values, without posterior noise
    const square = data.flat().reduce((s, x) => s + x * x, 0) / 6;
    const means = [0, 1].map((j) => data.reduce((s, clip) => s + clip[j], 0) / 3);
    const meanSquare = (means[0] ** 2 + means[1] ** 2) / 2;
    const nodes = [-Math.sqrt(3), 0, Math.sqrt(3)]; // Gauss-Hermite: exact for the noise's first two moments
    const weights = [1 / 6, 2 / 3, 1 / 6];
    let variance = 0;
    for (let j = 0; j < 2; j++) {
      let first = 0;
      let second = 0;
      for (const a of schedule.alphaBar) {
        for (const clip of data) {
          nodes.forEach((eps, i) => {
            const v = Math.sqrt(a) * eps - Math.sqrt(1 - a) * clip[j];
            first += (weights[i] * v) / (3 * schedule.steps);
            second += (weights[i] * v * v) / (3 * schedule.steps);
          });
        }
      }
      variance += (second - first ** 2) / 2;
    }
    const latents = { square, meanSquare, scale: 1, batch: async () => ({ mean: zeros([1]), logvar: zeros([1]) }) };
    expect(constantLoss("v", schedule, latents)).toBeCloseTo(variance, 10);
    expect(constantLoss("epsilon", schedule, latents)).toBe(1);
  });

  test("for pictures equals the variance around the mean frame", async () => {
    const clips = [Float32Array.of(1, -1, 0, 1), Float32Array.of(1, 1, 0, -1)]; // two clips of two frames of two values
    const data = { length: 2, batch: async ([i]: readonly number[]) => clips[i] } as unknown as Dataset;
    const frames = clips.flatMap((c) => [c.slice(0, 2), c.slice(2)]);
    const mean = [0, 1].map((j) => frames.reduce((s, f) => s + f[j], 0) / 4);
    const expected = frames.reduce((s, f) => s + (f[0] - mean[0]) ** 2 + (f[1] - mean[1]) ** 2, 0) / 8;
    expect(await meanFrameLoss(data, 2)).toBeCloseTo(expected, 12);
  });
});

test("the report holds its pictures and lets no caption become markup", () => {
  const page = renderReport({
    title: "a < b",
    facts: [["adapter", "<script>"]],
    curves: [
      {
        title: "loss",
        baseline: 1,
        points: [
          { step: 1, loss: 2 },
          { step: 2, loss: 0.5 },
        ],
      },
    ],
    galleries: [{ title: "made", pictures: [{ caption: 'say "<b>"', gif: Buffer.from("GIF89a") }] }],
  });
  expect(page).toContain("a &lt; b");
  expect(page).not.toContain("<script>");
  expect(page).not.toContain("<b>");
  expect(page).toContain(`data:image/gif;base64,${Buffer.from("GIF89a").toString("base64")}`);
  expect(page).toMatch(/<polyline class="curve l0" points="[\d.]+,[\d.]+ [\d.]+,[\d.]+"/);
});

test("the self-check passes on the reference, and reports an op that computes the wrong thing", async () => {
  const reference = await openDevice({ device: "reference" });
  expect((await selfCheck()).filter((c) => !c.ok)).toEqual([]);
  const right = reference.run.bind(reference);
  const usesNeg = (nodes: readonly { readonly op: unknown }[]): boolean => nodes.some((n) => n.op === neg);
  reference.run = (program, feed) => {
    const out = right(program, feed);
    if (usesNeg(Object.values(program.outputs)))
      for (const s of Object.values(out)) s.write(new Float32Array(s.shape.reduce((a, b) => a * b, 1)).fill(9));
    return out;
  };
  expect((await selfCheck()).filter((c) => !c.ok).map((c) => c.name)).toEqual(["neg"]);
  reference.run = right;
  useDevice(null);
});
