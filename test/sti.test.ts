// Spatial Temporal Interaction alone: golden data of the authors' layer in all its variants, what its branches can see, which
// gradients flow first, and its gradients against central differences.

import fc from "fast-check";
import { afterEach, describe, expect, vi } from "vitest";
import { grad, Rng, type Tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { drawer } from "../engine/testing/draw.ts";
import { directional } from "../engine/testing/index.ts";
import type { StiConfig } from "../models/config.ts";
import { SpatialTemporalInteraction } from "../models/sti.ts";
import { expectClose } from "./close.ts";
import { onGpu, onReference } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures, outputFailures } from "./golden_failures.ts";
import { drawnInput, scramble } from "./scramble.ts";

const reference = new ReferenceDevice();

const config: StiConfig = { heads: 2, dim: 4, pool: 2, outNorm: false };

afterEach(() => vi.restoreAllMocks());

describeFolder("sti-layer-a", (path) => {
  onReference("every variant of the layer, its gradients, and its start", async () => {
    const { count, failed } = await goldenFailures(path);
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThan(150);
  });

  onReference("notices that each branch has the weight of the other", async () => {
    const planted = function (this: SpatialTemporalInteraction, x: Tensor): Tensor {
      return this.semantic(x).mul(this.w2).add(this.detail(x).mul(this.w1));
    };
    vi.spyOn(SpatialTemporalInteraction.prototype, "forward").mockImplementation(planted);
    const failed = await outputFailures(path);
    expect(failed).toEqual(
      expect.arrayContaining(["out.full_even", "out.full_odd_norm", "out.light_odd8", "out.nopool"]),
    );
  });
});

describe("STI layer", () => {
  const frameOrder = [2, 0, 3, 1];
  const reordered = (x: Tensor): Tensor => {
    const [first, ...rest] = frameOrder.map((i) => x.slice(1, i, i + 1));
    return first.concat(rest, 1);
  };

  onReference("the semantic branch sees frames as a set, the detail branch in order (spec 9.3)", async () => {
    const x = new Rng(4).normal([1, 4, 5, 4, 8]);
    for (const light of [undefined, { frames: 4 }]) {
      const layer = scramble(new SpatialTemporalInteraction(8, { ...config, light }, 2), 1);
      const moved = reordered(layer.semantic(x));
      expectClose(await layer.semantic(reordered(x)).data(), await moved.data(), "semantic", { rtol: 1e-6 });
      const detail = layer.detail(reordered(x)).sub(reordered(layer.detail(x)));
      expect(Math.max(...(await detail.data()))).toBeGreaterThan(0.1);
    }
  });

  onReference("at the start only w1 of the semantic branch can move (spec 9.4)", async () => {
    const layer = new SpatialTemporalInteraction(8, config, 2).seed(1);
    const x = new Rng(4).normal([1, 2, 4, 4, 8]);
    expect(await layer.forward(x).data()).toEqual(await x.data());
    const names = ["w1", "w2", "transformer_blocks.to_q.weight", "transformer_blocks.to_out.0.weight"];
    const state = layer.state();
    const loss = layer.forward(x).mul(new Rng(5).normal(x.shape)).sum();
    const grads = grad(
      loss,
      names.map((name) => state.get(name)!),
    );
    const largest = await Promise.all(grads.map(async (g) => Math.max(...(await g.abs().data()))));
    expect(largest[0]).toBeGreaterThan(0);
    expect(largest[1]).toBeGreaterThan(0);
    expect(largest.slice(2)).toEqual([0, 0]);
  });

  onReference("works on the paper's smallest maps, 4 x 4, and refuses 1 x 1", async () => {
    const layer = new SpatialTemporalInteraction(8, config, 2).seed(1);
    expect(layer.forward(new Rng(1).normal([1, 8, 4, 4, 8])).shape).toEqual([1, 8, 4, 4, 8]);
    expect(() => layer.forward(new Rng(1).normal([1, 8, 1, 1, 8]))).toThrow("a window of 2 does not fit into axis");
  });

  onGpu("the GPU computes what the reference does, at an odd size", async (device) => {
    const layer = scramble(new SpatialTemporalInteraction(8, { ...config, outNorm: true, third: true }, 2), 3);
    const x = new Rng(6).normal([1, 2, 5, 3, 8]);
    useDevice(reference);
    const want = await layer.forward(x).data();
    useDevice(device);
    expectClose(await layer.forward(x).data(), want, "output", { rtol: 1e-5 }); // float32 sums of a few hundred terms
  });

  const check = (layer: SpatialTemporalInteraction, shape: readonly number[], seed: number): Promise<void> => {
    const x = drawnInput(shape, seed);
    return directional(scramble(layer, seed).forward(x), [x, ...layer.state().values()], { seed, directions: 2 });
  };

  onReference("gradients against central differences, over drawn variants and sizes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.gen(), fc.nat({ max: 2 ** 31 }), async (g, seed) => {
        const { int, pick } = drawer(g);
        const groups = pick([2, 1]);
        const channels = groups * int(2, 3);
        const frames = int(1, 3);
        const drawn: StiConfig = {
          heads: int(1, 2),
          dim: pick([4, 2]),
          pool: int(1, 2),
          outNorm: pick([false, true]),
          third: pick([false, true]),
          light: pick([undefined, { frames }]),
        };
        const layer = new SpatialTemporalInteraction(channels, drawn, groups);
        await check(layer, [int(1, 2), frames, int(2, 4), int(2, 5), channels], seed);
      }),
      { numRuns: 10, seed: 1 },
    );
  });

  onReference("the check notices a branch whose gradient is cut", async () => {
    const cut = SpatialTemporalInteraction.prototype.semantic;
    vi.spyOn(SpatialTemporalInteraction.prototype, "semantic").mockImplementation(function (
      this: SpatialTemporalInteraction,
      x: Tensor,
    ) {
      const y: Tensor = cut.call(this, x);
      return y.detach().add(y.mul(0));
    });
    await expect(check(new SpatialTemporalInteraction(4, config, 2), [1, 2, 4, 2, 4], 5)).rejects.toThrow("expected");
  });
});
