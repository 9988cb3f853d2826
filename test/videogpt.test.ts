// VideoGPT's networks: golden data of the authors' implementation, parameter counts of the paper, gradients of every layer,
// and laws: what a prediction may depend on, that remembering keys and values changes no code, how the codebook moves.

import { describe, expect, test } from "vitest";
import { compile, grad, type Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { normalInit } from "../engine/nn/index.ts";

import { directional } from "../engine/testing/index.ts";
import type { Check } from "../eval/golden/kind.ts";
import { videogpt } from "../eval/golden/videogpt.ts";
import { Codebook } from "../models/codebook.ts";
import { PRESETS } from "../models/config.ts";
import { drawMask, Prior, type PriorConfig } from "../models/prior.ts";
import { choose, MaskedSampler, NextSampler } from "../models/prior_sampling.ts";
import { countSystems } from "../models/systems.ts";
import { priorConfig, VideoGpt, videoGptConfig } from "../models/videogpt.ts";
import { MultiHeadAttention, OuterLayerNorm, PositionTables } from "../models/videogpt_blocks.ts";
import { VqVae, type VqVaeConfig } from "../models/vqvae.ts";
import { CollapseAlarm } from "../train/collapse.ts";
import { onEach, onReference } from "./device.ts";
import { describeFolder } from "./golden.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];

const tinyVq: VqVaeConfig = { hidden: 4, layers: 1, codes: 6, embedding: 3, strides: [1, 2, 4] };
const tinyPrior: PriorConfig = {
  ...{ grid: [2, 2, 3], codes: 7, embedding: 3, width: 12, heads: 2, layers: 2, dropout: 0, attentionDropout: 0 },
  ...{ objective: "next", tags: { count: 5, slots: 2 }, frames: null },
};

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Standard normal values by a seed, on the host. */
function normals(shape: readonly number[], seed: number): Float32Array {
  return normalInit(1)(shape, [seed, 0]);
}

/** A prior whose head is not zero and whose inputs are not small, so that its codes differ. */
function seeded(over: Partial<PriorConfig> = {}, seed = 1): { prior: Prior; table: Tensor } {
  const prior = new Prior({ ...tinyPrior, ...over }).seed(seed);
  for (const { weight } of [prior.fcOut, prior.fcIn]) weight.write(normals(weight.shape, seed));
  const { codes, embedding } = prior.config;
  return { prior, table: tensor(normals([codes, embedding], seed + 1), [codes, embedding]) };
}

// ---- numbers of others ----------------------------------------------------------------------------------------------

describeFolder("videogpt-a", (folder) => {
  const failures = async (): Promise<{ failed: Check[]; count: number }> => {
    const found: Check[] = [];
    for await (const check of videogpt.run(folder)) found.push(check);
    return { failed: found.filter((c) => !c.ok), count: found.length };
  };

  onReference("evaluation, two training steps, prior, greedy codes and given frames", async () => {
    const { failed, count } = await failures();
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThan(150);
  });
});

describe("sizes", () => {
  test("the paper's parameters, tags on top; the codebook is none of them", () => {
    const [{ total, components, beyond }] = countSystems(["videogpt"], ["paper"]);
    const { vqvae, prior } = components;
    expect([vqvae.count, prior.count, total]).toEqual([21_141_619, 81_095_232, 102_236_851]);
    expect(Object.values(vqvae.parts)).toEqual([11_286_960, 9_731_283, 61_696, 61_680]);
    expect(Object.values(prior.parts)).toEqual([147_456, 576, 24_960, 79_741_440, 1_152, 1_179_648]);
    expect(total + beyond.tags).toBe(102_364_851);
  });
  test("the paper's grid of 8192 codes, and a prior for the grid of every preset", () => {
    expect(priorConfig(videoGptConfig("paper")).grid).toEqual([2, 64, 64]);
    for (const preset of PRESETS) expect(() => new VideoGpt(videoGptConfig(preset))).not.toThrow();
  });
  test("sizes that do not fit are refused by name", () => {
    expect(() => new VqVae({ ...tinyVq, strides: [1, 3, 2] })).toThrow("must be powers of two");
    expect(() => new VqVae({ ...tinyVq, strides: [1, 1, 1] })).toThrow("one of them above 1");
    expect(() => new VqVae({ ...tinyVq, hidden: 5 })).toThrow("5 channels are not even");
    expect(() => new VqVae(tinyVq).grid([2, 4, 6])).toThrow("do not divide a video of [2, 4, 6]");
    expect(() => new Prior({ ...tinyPrior, width: 10 })).toThrow("10 features do not divide among 3 axes");
    expect(() => new Prior({ ...tinyPrior, heads: 5 })).toThrow("do not divide into 5 heads");
  });
});

// ---- gradients ------------------------------------------------------------------------------------------------------

describe("gradients along random directions", () => {
  const next = new Rng(5);
  const draw = (...shape: number[]): Tensor => next.normal(shape).keep();

  onReference("layer norm with its eps outside, position tables", async () => {
    const [norm, positions] = [new OuterLayerNorm(6).seed(1), new PositionTables([2, 3, 2], 6).seed(1)];
    const x = draw(2, 12, 6);
    await directional(norm.forward(x.add(positions.forward())), [x, ...norm.parameters(), ...positions.parameters()]);
  });
  onReference("attention: plain, causal, to another source, along each axis, with dropped weights", async () => {
    const [own, cross] = [new MultiHeadAttention(4, 2).seed(1), new MultiHeadAttention(4, 2, { source: 6 }).seed(2)];
    const [x, source, video] = [draw(2, 3, 4), draw(2, 5, 6), draw(1, 2, 3, 2, 4)];
    const dropped = (): Tensor => own.forward(x, x, { causal: true, dropout: 0.5, rng: new Rng(3) });
    const outs = [
      own.forward(x),
      own.forward(x, x, { causal: true }),
      cross.forward(x, source),
      dropped(),
      ...(["t", "h", "w"] as const).map((axis) => own.along(video, axis)),
    ];
    const out = outs.map((y) => y.square().mean()).reduce((a, b) => a.add(b));
    await directional(out, [x, source, video, ...own.parameters(), ...cross.parameters()]);
  });
  onReference("the VQ-VAE's two halves, with statistics of the batch", async () => {
    const model = new VqVae(tinyVq).seed(1);
    for (const p of model.parameters()) if (p.rank === 1) p.write(normals(p.shape, size(p.shape))); // no ReLU at its kink
    const [x, v] = [draw(2, 2, 4, 4, 3), draw(2, 2, 2, 1, 3)];
    // Through the quantiser the gradient is not the slope: each half by itself.
    for (const training of [false, true]) {
      const vectors = model.vectors(x, { training });
      await directional(vectors, [x, ...model.encoder.parameters(), ...model.preVqConv.parameters()]);
      const video = model.render(v, { training });
      await directional(video, [v, ...model.decoder.parameters(), ...model.postVqConv.parameters()]);
    }
  });
  onReference("the prior: both objectives, tags and given frames", async () => {
    const codes = tensor(
      Int32Array.from({ length: 24 }, (_, i) => (i * 5) % 7),
      [2, 12],
    );
    const tags = tensor(Int32Array.from([0, 3, 1, 1]), [2, 2]);
    for (const objective of ["next", "masked"] as const) {
      const { prior, table } = seeded({ objective, frames: 4 });
      const frames = draw(2, 3, 4);
      const loss = prior.loss(codes, table, new Rng(2), { tags, frames });
      await directional(
        loss,
        [frames, ...prior.parameters()].filter((p) => p !== unused(prior, objective)),
      );
    }
  });
});

/** The masked objective has no start vector. */
function unused(prior: Prior, objective: string): Parameter | null {
  return objective === "masked" ? prior.attnStack.start : null;
}

// ---- the codebook ---------------------------------------------------------------------------------------------------

describe("the codebook", () => {
  const restart = new Rng(1);

  onReference("straight through: the value of a code, the gradient of the vector", async () => {
    const book = new Codebook(5, 3).seed(1);
    const z = new Rng(2).normal([4, 3]).keep();
    const { vectors, codes, commitment } = book.forward(z);
    const [weight, looked] = [new Rng(3).normal([4, 3]).keep(), book.lookup(codes)];
    const [through, pull] = [grad(vectors.square().mul(weight).sum(), [z])[0], grad(commitment, [z])[0]];
    const close = async (want: Tensor): Promise<unknown[]> => (await list(want)).map((x) => expect.closeTo(x, 6));
    expect(await list(vectors)).toEqual(await close(looked));
    expect(await list(through)).toEqual(await close(looked.mul(weight).mul(2)));
    expect(await list(pull)).toEqual(await close(z.sub(looked).mul((2 * 0.25) / 12)));
    const distances = (await list(z.reshape([4, 1, 3]).sub(book.embeddings).square().sum(2))) as number[];
    const nearest = [0, 1, 2, 3].map((row) => {
      const d = distances.slice(5 * row, 5 * row + 5);
      return d.indexOf(Math.min(...d));
    });
    expect(await list(codes)).toEqual(nearest);
  });

  onReference("is no parameter, moves in training steps only, and by the same numbers for the same seed", async () => {
    const run = async (seed: number): Promise<number[]> => {
      const book = new Codebook(4, 2).seed(1);
      expect(book.parameters()).toEqual([]);
      const rng = new Rng(seed);
      const step = compile(({ z }: { z: Tensor }) => ({ p: book.forward(z, { init: rng, restart: rng }).perplexity }));
      for (let i = 0; i < 3; i++) await step({ z: new Rng(9 + i).normal([6, 2]) }).p.item();
      const before = await list(book.embeddings);
      await book.forward(new Rng(20).normal([6, 2])).perplexity.item();
      expect(await list(book.embeddings)).toEqual(before);
      return [...before, ...(await list(book.counts)), ...(await list(book.sums))];
    };
    expect(await run(1)).toEqual(await run(1));
    expect(await run(1)).not.toEqual(await run(2));
  });

  onReference(
    "begins in the first batch; then living codes go to the mean of theirs, dead ones into the batch",
    async () => {
      const book = new Codebook(3, 1).seed(1);
      const step = compile(({ z }: { z: Tensor }) => ({ ...book.forward(z, { init: restart, restart }) }));
      const codesAfter = async (...z: number[]): Promise<number[]> => {
        await step({ z: tensor(z, [z.length, 1]) }).alive.item();
        return list(book.embeddings);
      };
      expect((await codesAfter(7, 7, 7, 7)).map(Math.round)).toEqual([7, 7, 7]);
      expect((await list(book.counts)).reduce((a, b) => a + b, 0)).toBeCloseTo(0.99 * 3 + 0.01 * 4, 5);
      book.embeddings.write([5, 100, -1]);
      book.counts.write([4, 0.5, 4]);
      book.sums.write([20, 50, -4]);
      const [first, dead, last] = await codesAfter(6, 6, 6, -1);
      expect(first).toBeCloseTo((0.99 * 20 + 0.01 * 18) / (0.99 * 4 + 0.01 * 3), 4);
      expect(last).toBeCloseTo(-1, 4);
      expect([6, -1]).toContain(dead);
    },
  );

  onReference("fewer vectors than codes: copies with noise", async () => {
    const book = new Codebook(7, 2).seed(1);
    const step = compile(({ z }: { z: Tensor }) => ({ p: book.forward(z, { init: restart, restart }).perplexity }));
    await step({ z: tensor([1, 2, 3, 4, 5, 6], [3, 2]) }).p.item();
    const rows = await list(book.embeddings);
    const pairs = Array.from({ length: 7 }, (_, i) => rows.slice(2 * i, 2 * i + 2));
    expect(new Set(pairs.map(([a]) => Math.round(a))).size).toBe(3); // every vector has copies
    expect(new Set(pairs.map(([a]) => a)).size).toBe(7); // no two alike
  });

  onReference("perplexity: all codes alike K, one code 1", async () => {
    const book = new Codebook(4, 1);
    book.embeddings.write([0, 1, 2, 3]);
    expect(await book.forward(tensor([0, 1, 2, 3], [4, 1])).perplexity.item()).toBeCloseTo(4, 4);
    expect(await book.forward(tensor([2, 2.1, 1.9], [3, 1])).perplexity.item()).toBeCloseTo(1, 4);
  });

  test("the alarm rings once per collapse, not for a moment's weakness", () => {
    const alarm = new CollapseAlarm({ codes: 100, share: 0.05, patience: 3 });
    const rings = [4, 4, 50, 4, 4, 4, 4, 4, 6, Number.NaN, 1, 1, 1].map((p, i) => alarm.hear(i + 1, p) !== null);
    expect(rings.map((r, i) => (r ? i + 1 : 0)).filter((i) => i > 0)).toEqual([6, 12]);
    const line = new CollapseAlarm({ codes: 64, patience: 1 }).hear(9, 1.5) as string;
    expect(line).toContain("at step 9 perplexity is 1.50 of 64 codes, and below 3.20 for 1 steps");
  });
});

// ---- what a prediction may depend on --------------------------------------------------------------------------------

describe("the prior", () => {
  /** Which of the 12 places' vectors, and whether the tags, move the logits of place i. */
  async function sees(prior: Prior, table: Tensor, i: number): Promise<{ places: number[]; tags: boolean }> {
    const codes = tensor(
      Int32Array.from({ length: 12 }, (_, j) => j % 7),
      [1, 12],
    );
    const vectors = (await tensorOf(table.gatherRows(codes))).keep();
    const logits = prior.forward(vectors, { tags: tensor(Int32Array.from([0, 4]), [1, 2]) });
    const one = logits
      .slice(1, i, i + 1)
      .square()
      .sum();
    const [g, t] = grad(one, [vectors, prior.tags as Parameter]);
    const places = (await list(g.abs().sum([0, 2]))).flatMap((x, j) => (x > 1e-12 ? [j] : []));
    return { places, tags: (await t.abs().sum().item()) > 1e-12 };
  }
  const tensorOf = async (x: Tensor): Promise<Tensor> => tensor(Float32Array.from(await x.data()), x.shape);

  onReference(
    "next: the logits of a code depend on the codes before it and the tags, and on nothing else",
    async () => {
      const { prior, table } = seeded();
      for (const i of [0, 1, 5, 11]) {
        const before = Array.from({ length: i }, (_, j) => j);
        expect(await sees(prior, table, i)).toEqual({ places: before, tags: true });
      }
    },
  );
  onReference("masked: they depend on all places and the tags", async () => {
    const { prior, table } = seeded({ objective: "masked" });
    expect(await sees(prior, table, 4)).toEqual({ places: Array.from({ length: 12 }, (_, j) => j), tags: true });
  });
  onReference("masked: the loss knows a hidden code only as the answer", async () => {
    const { prior, table } = seeded({ objective: "masked" });
    const hidden = tensor(
      Int32Array.from({ length: 12 }, (_, j) => Number(j === 3)),
      [1, 12],
    ).cast("bool");
    const with3 = (code: number): Tensor => tensor(Int32Array.from([0, 1, 2, code, 4, 5, 6, 0, 1, 2, 3, 4]), [1, 12]);
    const tags = tensor(Int32Array.from([0, 1]), [1, 2]);
    const logits = (code: number) => list(prior.forward(prior.corrupt(with3(code), table, hidden), { tags }));
    expect(await logits(0)).toEqual(await logits(6));
  });
  onReference("a new one knows nothing: its loss is the logarithm of the number of codes", async () => {
    const prior = new Prior({ ...tinyPrior, tags: null }).seed(1);
    const codes = tensor(new Int32Array(12).fill(2), [1, 12]);
    const loss = prior.loss(codes, new Rng(1).normal([7, 3]), new Rng(2));
    expect(await loss.item()).toBeCloseTo(Math.log(7), 6);
  });
  onReference("masks: at least one place, and 2 / pi of them on average", async () => {
    const masked = await list(drawMask(tensor(new Float32Array(400 * 20), [400, 20]), new Rng(4)).cast("f32"));
    const rows = Array.from({ length: 400 }, (_, i) => masked.slice(20 * i, 20 * i + 20).reduce((a, b) => a + b, 0));
    expect(Math.min(...rows)).toBeGreaterThanOrEqual(1);
    // ceil adds half a place; the standard error of the mean of 400 ratios is 0.015.
    expect(rows.reduce((a, b) => a + b, 0) / 400 / 20).toBeCloseTo(2 / Math.PI + 0.025, 1);
  });
  test("asks for the tags and frames that it was made for", () => {
    const { prior, table } = seeded({ frames: 4 });
    const vectors = table.gatherRows(tensor(new Int32Array(12), [1, 12]));
    expect(() => prior.forward(vectors)).toThrow('expected tags "b 2"');
    expect(() => prior.forward(vectors, { tags: tensor(new Int32Array(2), [1, 2]) })).toThrow("expect given frames");
  });
});

// ---- sampling -------------------------------------------------------------------------------------------------------

describe("sampling", () => {
  const tags = tensor(Int32Array.from([0, 2, 1, 4]), [2, 2]);
  const numbers = async (m: number): Promise<Tensor> =>
    tensor(Float32Array.from(await new Rng(8).uniform([2, m]).data()), [2, m]);

  async function drawn(sampler: NextSampler, u: Tensor, o: { tags?: Tensor; temperature?: number }): Promise<number[]> {
    for await (const _ of sampler.draw(u, o));
    return list(sampler.codes);
  }

  /** The same, by running the whole network for each code. */
  async function plain(prior: Prior, table: Tensor, u: Tensor, o: { topK?: number; temperature: number }) {
    const step = compile(({ codes, i }: { codes: Tensor; i: Tensor }) => {
      const at = codes.arange(12).equal(i.cast("i32"));
      const logits = prior.forward(table.gatherRows(codes), { tags });
      const here = (x: Tensor): Tensor => at.reshape([12, 1]).where(x, 0).sum(1);
      const chosen = choose(here(logits), at.where(u, 0).sum(1), tensor([o.temperature]), o);
      return { codes: at.where(chosen.reshape([2, 1]), codes) };
    });
    let codes = tensor(new Int32Array(24), [2, 12]);
    for (let i = 0; i < 12; i++) codes = step({ codes, i }).codes;
    return list(codes);
  }

  onEach("remembered keys and values give the codes that the whole network gives", async () => {
    const { prior, table } = seeded();
    const u = await numbers(12);
    const sampler = new NextSampler(prior, table, 2, { topK: 5 });
    const first = await drawn(sampler, u, { tags, temperature: 0.8 });
    expect(first).toEqual(await plain(prior, table, u, { topK: 5, temperature: 0.8 }));
    expect(new Set(first).size).toBeGreaterThan(2);
    expect(await drawn(sampler, u, { tags, temperature: 0.8 })).toEqual(first); // nothing is left of an earlier draw
  });

  onReference("a row of a batch gives what it would give alone; tags and numbers decide", async () => {
    const { prior, table } = seeded();
    const u = await numbers(12);
    const both = await drawn(new NextSampler(prior, table, 2), u, { tags });
    const alone = new NextSampler(prior, table, 1);
    const second = { tags: tags.slice(0, 1, 2).keep() };
    expect(await drawn(alone, u.slice(0, 1, 2).keep(), second)).toEqual(both.slice(12));
    expect(await drawn(alone, u.slice(0, 0, 1).keep(), second)).not.toEqual(both.slice(12));
    expect(await drawn(alone, u.slice(0, 1, 2).keep(), { tags: tags.slice(0, 0, 1).keep() })).not.toEqual(
      both.slice(12),
    );
  });

  onReference("codes are chosen as often as softmax says; top-k and greedy cut it", async () => {
    const m = 4000;
    const logits = tensor([0, 1, 2, 1.5], [1, 4]).expand([m, 4]);
    const u = tensor(Float32Array.from({ length: m }, (_, i) => (i + 0.5) / m));
    const shares = async (temperature: number, o: object): Promise<number[]> => {
      const chosen = await list(choose(logits, u, tensor([temperature]), o));
      return [0, 1, 2, 3].map((c) => chosen.filter((x) => x === c).length / m);
    };
    const softmax = (t: number, kept = [0, 1, 2, 3]): unknown[] => {
      const e = [0, 1, 2, 1.5].map((x, i) => (kept.includes(i) ? Math.exp(x / t) : 0));
      return e.map((x) => expect.closeTo(x / e.reduce((a, b) => a + b, 0), 3));
    };
    expect(await shares(1, {})).toEqual(softmax(1));
    expect(await shares(0.5, {})).toEqual(softmax(0.5));
    expect(await shares(1, { topK: 2 })).toEqual(softmax(1, [2, 3]));
    expect(await shares(1, { topK: 1 })).toEqual([0, 0, 1, 0]);
    expect(await shares(1, { greedy: true })).toEqual([0, 0, 1, 0]);
    const last = tensor([1 - 2 ** -24, 0], [2]); // the largest number that is drawn, and the least
    expect(await list(choose(tensor([-40, 0, -40, 0, 0, -40], [2, 3]), last, tensor([1]), {}))).toEqual([1, 0]);
  });

  onReference("masked: every round keeps what was sure and leaves the cosine's share, the last none", async () => {
    const { prior, table } = seeded({ objective: "masked" });
    const sampler = new MaskedSampler(prior, table, 4);
    const u = new Rng(3).uniform([4, 2, 12]).keep();
    let known = new Array<number>(24).fill(-1);
    for await (const now of sampler.draw(u, { tags })) {
      const codes = await list(now);
      expect(codes.filter((c, i) => known[i] >= 0 && c !== known[i])).toEqual([]);
      known = codes;
    }
    const masked = async (rounds: number): Promise<number> => {
      let left = 12;
      let r = 0;
      for await (const now of sampler.draw(u, { tags }))
        if (++r === rounds) left = (await list(now)).slice(0, 12).filter((c) => c < 0).length;
      return left;
    };
    expect(known.filter((c) => c < 0 || c >= 7)).toEqual([]);
    expect([await masked(1), await masked(2), await masked(3), await masked(4)]).toEqual([11, 8, 4, 0]);
  });

  test("a sampler refuses a prior of the other objective", () => {
    const { prior, table } = seeded();
    expect(() => new MaskedSampler(prior, table)).toThrow('objective "masked"');
    const masked = seeded({ objective: "masked" });
    expect(() => new NextSampler(masked.prior, masked.table, 1)).toThrow('objective "next"');
  });
});
