// The autoencoder: golden data of the implementation that it follows, with bugs planted, and what can be said of it without
// that data.

import { describe, expect, test, vi } from "vitest";
import { Rng, tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import type { AutoencoderConfig } from "../models/config.ts";
import { onGpu } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures, outputFailures } from "./golden_failures.ts";

// A software adapter compiles over a hundred kernels for a model and its gradients, most of a second each when it is busy.
vi.setConfig({ testTimeout: 300_000 });

const reference = new ReferenceDevice();

describeFolder("vae-sd-a", (path) => {
  onGpu("outputs, loss, all gradients, and weights under their old names", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 174, failed: [] });
  });

  test("log-variances that are not clamped, and a mean in the place of the sample, are found", async () => {
    useDevice(reference);
    const encode = vi.spyOn(Autoencoder.prototype, "encode").mockImplementation(function (this: Autoencoder, x) {
      const moments = this.moments(x);
      return { mean: moments.slice(3, 0, this.config.latent), logvar: moments.slice(3, this.config.latent).mul(0.99) };
    });
    try {
      const failed = await outputFailures(path);
      expect(failed).toEqual(expect.arrayContaining(["out.std", "out.sample", "out.kl", "out.recon"]));
      expect(failed).not.toContain("out.mode");
    } finally {
      encode.mockRestore();
    }
  });
});

describe("autoencoder", () => {
  const config: AutoencoderConfig = { channels: [8, 8], layers: 1, latent: 2, groups: 4 };

  test("counts of the paper's networks (spec 2.4)", () => {
    const vae = new Autoencoder({ channels: [128, 256, 512, 512], layers: 2, latent: 4, groups: 32 });
    const counts = [vae.encoder, vae.decoder, vae.quantConv, vae.postQuantConv].map((part) => part.count());
    expect(counts).toEqual([34_163_592, 49_490_179, 72, 20]);
  });

  test("loss is squared error plus weighted KL per image value; scaling is undone", async () => {
    useDevice(reference);
    const vae = new Autoencoder(config, 0.5).seed(3);
    const x = new Rng(1).uniform([2, 4, 6, 3]);
    const noise = new Rng(2).normal([2, 2, 3, 2]);
    const z = vae.latents(x, noise);
    const posterior = vae.encode(x);
    const logvar = await posterior.logvar.data();
    const mean = [...(await posterior.mean.data())];
    const kl =
      mean.reduce((sum, m, i) => sum + 0.5 * (m * m + Math.exp(logvar[i]) - 1 - logvar[i]), 0) / (2 * 4 * 6 * 3);
    const pixels = await x.data();
    const error =
      [...(await vae.decode(z.mul(2)).data())].reduce((sum, y, i) => sum + (y - pixels[i]) ** 2, 0) / pixels.length;
    const parts = vae.loss(x, noise, { klWeight: 0.1 });
    // Float32 rounding of the values read back.
    expect(await parts.kl.item()).toBeCloseTo(kl, 6);
    expect(await parts.reconstruction.item()).toBeCloseTo(error, 6);
    expect(await parts.loss.item()).toBeCloseTo(error + 0.1 * kl, 6);
  });

  test("an image whose sides do not divide is refused by name", () => {
    expect(() => new Autoencoder(config).encode(tensor(new Float32Array(63), [1, 7, 3, 3]))).toThrow(
      /divisible by 2.*\[1, 7, 3, 3\]/,
    );
  });
});
