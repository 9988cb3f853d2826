// The pool of device buffers, on a device that only counts: what is kept although nobody uses it is bounded whatever sizes are
// asked for, and what fits is used again. That eager work and reading back stay within it: the last test, on the device.

import { beforeAll, describe, expect, test } from "vitest";
import { tensor } from "../engine/index.ts";
import "../engine/runtime/dawn.ts"; // defines GPUBufferUsage
import { KEPT, Pool } from "../engine/runtime/pool.ts";
import { collected } from "./collect.ts";
import { onGpu } from "./device.ts";

interface Counted {
  readonly size: number;
  destroyed: boolean;
}

function countingPool(): { pool: Pool; made: Counted[] } {
  const made: Counted[] = [];
  const device = {
    createBuffer: ({ size }: { size: number }): Counted & { destroy(): void } => {
      const buffer = {
        size,
        destroyed: false,
        destroy: (): void => {
          buffer.destroyed = true;
        },
      };
      made.push(buffer);
      return buffer;
    },
    pushErrorScope: () => {},
    popErrorScope: async () => null,
  };
  const pool = new Pool(device as unknown as GPUDevice, { maxBuffer: 2 ** 30, onOutOfMemory: () => {} });
  return { pool, made };
}

describe("the pool", () => {
  let { pool, made } = countingPool();
  beforeAll(() => {
    ({ pool, made } = countingPool());
  });

  test("keeps no more free bytes than are in use, or 32 MiB, whatever sizes come", () => {
    const held = Array.from({ length: 5 }, (_, i) => pool.take(2 ** 24 + 16 * i, "held"));
    const inUse = 5 * 2 ** 24 + 16 * 10;
    for (let i = 0; i < 500; i++) {
      const size = 2 ** 20 + 2 ** 14 * ((i * 37) % 500);
      pool.release(pool.take(size, "eager"));
      expect(pool.stats().bytes).toBeLessThanOrEqual(inUse + Math.max(KEPT.bytes, inUse));
      expect(pool.stats().buffers).toBeLessThanOrEqual(5 + KEPT.buffers);
    }
    for (const b of held) pool.release(b);
    expect(pool.stats().bytes).toBeLessThanOrEqual(KEPT.bytes);
    expect(made.filter((b) => !b.destroyed).reduce((sum, b) => sum + b.size, 0)).toBe(pool.stats().bytes);
  });
  test("gives up the ones that lay longest, small ones by their number", () => {
    pool.trim();
    expect(pool.stats()).toEqual({ buffers: 0, bytes: 0 });
    const many = Array.from({ length: KEPT.buffers + 40 }, (_, i) => pool.take(1024 * (i + 1), "small"));
    for (const b of many) pool.release(b);
    expect(pool.stats().buffers).toBe(KEPT.buffers);
    expect(many.map((b) => (b as unknown as Counted).destroyed).indexOf(false)).toBe(40);
  });
  test("uses again what fits: the smallest, no more than a quarter too large, and for the same use", () => {
    pool.trim();
    const [large, small] = [pool.take(1200, "a"), pool.take(1100, "b")];
    pool.release(small);
    pool.release(large);
    expect(pool.take(1000, "c", "read-back")).not.toBe(small);
    expect(pool.take(1000, "d")).toBe(small);
    expect(pool.take(1000, "e")).toBe(large);
    pool.release(large);
    expect(pool.take(900, "f")).not.toBe(large);
    expect(pool.largest(1)).toEqual([{ label: "b", bytes: 1100 }].map((b) => ({ ...b, label: "d" })));
  });
  test("buffers of scalars are never shared", () => {
    const uniforms = pool.take(256, "uniforms", "scalars");
    const { buffers } = pool.stats();
    pool.release(uniforms);
    expect(pool.stats().buffers).toBe(buffers - 1);
  });
});

onGpu("eager work on ever new sizes, read back, keeps a bounded number of buffers", async (device) => {
  await collected();
  const before = device.memory().buffers;
  let most = 0;
  for (let n = 1; n <= 400; n++) {
    const values = await tensor(new Float32Array(4 * n).fill(n))
      .add(1)
      .data();
    expect([values.length, values[4 * n - 1]]).toEqual([4 * n, n + 1]);
    if (n % 50 === 0) await collected();
    most = Math.max(most, device.memory().buffers - before);
  }
  expect(most).toBeLessThan(KEPT.buffers + 50 * 3);
});
