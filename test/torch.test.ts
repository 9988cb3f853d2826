// Reading torch checkpoints: files of torch itself, files made here with drawn views, strides and byte orders, malicious
// and damaged ones, and parameters filled from them.

import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { load } from "../engine/checkpoint.ts";
import { type Device, openDevice, Parameter, useDevice } from "../engine/index.ts";
import { memorySource } from "../engine/source.ts";
import { parseTensors } from "../engine/tensor_file.ts";
import { parseTorch, TorchFileError, torch } from "../engine/torch/index.ts";
import { torchPickle } from "../eval/golden/torch_pickle.ts";
import { describeFolder } from "./golden.ts";
import { type Made, type MadeTensor, TYPES, torchCalling, torchLegacy, torchZip, zip } from "./torch_files.ts";

let folder: string;
let device: Device;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-torch-"));
  device = await openDevice({ device: "reference" });
});
afterAll(async () => {
  device.close();
  useDevice(null);
  await rm(folder, { recursive: true });
});

describeFolder("torch-pickle-a", (path) => {
  test("every file is read, or refused, as expectations.json says", async () => {
    const bad: string[] = [];
    let files = 0;
    for await (const { name, ok, message } of torchPickle.run(path)) {
      files++;
      if (!ok) bad.push(`${name}: ${message}`);
    }
    expect(bad).toEqual([]);
    expect(files).toBe(60);
  });
});

// ---- files made here

/** Small whole numbers are exact in every element type. */
const whole = fc.integer({ min: 0, max: 100 });

/** A view of a storage that is exactly as long as it needs, or longer. */
const view = fc
  .record({
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    step: fc.integer({ min: 0, max: 3 }),
    reversed: fc.boolean(),
    offset: fc.integer({ min: 0, max: 5 }),
    parameter: fc.boolean(),
  })
  .map(({ shape, step, reversed, offset, parameter }) => {
    const strides = new Array<number>(shape.length).fill(0);
    const order = shape.map((_, i) => (reversed ? i : shape.length - 1 - i));
    let stride = step;
    for (const axis of order) {
      strides[axis] = stride;
      stride *= Math.max(1, shape[axis]);
    }
    return { shape, strides, offset, parameter };
  });

const end = ({ shape, strides, offset }: Omit<MadeTensor, "storage">): number =>
  shape.includes(0) ? offset : shape.reduce((last, n, i) => last + (n - 1) * strides[i], offset) + 1;

const made: fc.Arbitrary<Made> = fc
  .array(
    fc.record({
      dtype: fc.constantFrom(...(Object.keys(TYPES) as (keyof typeof TYPES)[])),
      views: fc.array(view, { minLength: 1, maxLength: 3 }),
      seed: whole,
    }),
    { minLength: 1, maxLength: 3 },
  )
  .map((list) => ({
    storages: list.map(({ dtype, views, seed }) => {
      const length = Math.max(...views.map(end)) + (seed % 3);
      return { dtype, values: Array.from({ length }, (_, i) => (i * 7 + seed) % 101) };
    }),
    tensors: Object.fromEntries(
      list.flatMap(({ views }, storage) => views.map((v, i) => [`layer${storage}.${i}`, { ...v, storage }])),
    ),
  }));

/** What a view holds, by its definition. */
function elementsOf({ storages }: Made, { storage, offset, shape, strides }: MadeTensor): number[] {
  const { values } = storages[storage];
  const walk = (axis: number, at: number): number[] =>
    axis === shape.length
      ? [values[at]]
      : Array.from({ length: shape[axis] }, (_, i) => walk(axis + 1, at + i * strides[axis])).flat();
  return walk(0, offset);
}

async function expectSame(bytes: Uint8Array, it: Made): Promise<void> {
  const file = await parseTensors(bytes, "made");
  expect([...file.tensors.keys()].sort()).toEqual(Object.keys(it.tensors).sort());
  for (const [name, t] of Object.entries(it.tensors)) {
    expect(file.tensors.get(name)?.shape).toEqual(t.shape);
    expect([name, ...(await file.read(name))]).toEqual([name, ...elementsOf(it, t)]);
    expect([name, ...(await file.readFloat64(name))]).toEqual([name, ...elementsOf(it, t)]);
  }
}

test("views, strides, shared storages, dtypes and byte orders come out as written, from both containers", async () => {
  const options = fc.record({ protocol: fc.constantFrom(2, 3, 4, 5), bigEndian: fc.boolean(), deflate: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(made, options, async (it, o) => {
      await expectSame(torchZip(it, o), it);
      await expectSame(torchLegacy(it), it);
    }),
    { numRuns: 60, seed: 1 },
  );
});

test("a storage larger than one read is gathered across its chunks", async () => {
  const n = 1_300_000; // 5.2 MB of f32: two reads
  const storages = [{ dtype: "F32" as const, values: Array.from({ length: n }, (_, i) => i % 1000) }];
  const plain = { storage: 0, offset: 0, shape: [n], strides: [1] };
  const columns = { storage: 0, offset: 0, shape: [2, n / 2], strides: [1, 2] };
  const file = await parseTorch(torchZip({ storages, tensors: { plain, columns } }));
  const [a, b] = [await file.read("plain"), await file.read("columns")];
  expect(a.every((x, i) => x === i % 1000)).toBe(true);
  expect(b.every((x, i) => x === (2 * (i % (n / 2)) + Number(i >= n / 2)) % 1000)).toBe(true);
});

test("of a large file only its directory, its pickle and the tensor that is asked for are read", async () => {
  const n = 1 << 20;
  const storages = [0, 1, 2].map(() => ({ dtype: "F32" as const, values: new Array<number>(n).fill(1) }));
  const tensors = Object.fromEntries(
    storages.map((_, i) => [`w${i}`, { storage: i, offset: 0, shape: i === 1 ? [10] : [n], strides: [1] }]),
  );
  for (const bytes of [torchZip({ storages, tensors }), torchLegacy({ storages, tensors })]) {
    let read = 0;
    const source = memorySource(bytes, "large");
    const counted = (from: number, to: number): Promise<ArrayBuffer> => {
      read += to - from;
      return source.bytes(from, to);
    };
    const counting = { ...source, bytes: counted };
    const file = await torch(counting);
    expect([...(await file.read("w1"))]).toEqual(new Array(10).fill(1));
    expect(read).toBeLessThan(bytes.length / 20);
  }
});

// ---- what must not be read

describe("refused in one line that says why:", () => {
  const one: Made = {
    storages: [{ dtype: "F32", values: [1, 2, 3, 4] }],
    tensors: { w: { storage: 0, offset: 0, shape: [2, 2], strides: [2, 1] } },
  };
  const planted: [string, Uint8Array, RegExp][] = [
    ["a call of os.system", torchCalling("os.system"), /x\.pt: refused: it uses os\.system,/],
    ["a member of torch that tensors do not need", torchCalling("torch.load"), /torch\.load/],
    ["a builtin", torchCalling("builtins.eval"), /builtins\.eval/],
    ["a call of a dtype", torchCalling("torch.float32"), /calls torch\.float32/],
    ["an archive without a pickle", zip([["archive/version", Buffer.from("3")]]), /found 0/],
    ["a member that is there twice", zip(["a", "a"].map((n) => [n, Buffer.from("x")] as const)), /twice/],
    [
      "a view behind its storage",
      torchZip({ ...one, tensors: { w: { ...one.tensors.w, offset: 1 } } }),
      /view ends at/,
    ],
    [
      "a view that repeats one element a million million times",
      torchZip({ ...one, tensors: { w: { storage: 0, offset: 0, shape: [1e6, 1e6], strides: [0, 0] } } }),
      /repeats/,
    ],
    ["nothing", new Uint8Array(0), /cut off/],
    ["text", Buffer.from("hello world\n"), /not a valid torch file/],
    ["protocol 6", Uint8Array.of(0x80, 6, 0x4e, 0x2e), /protocol 6/],
  ];
  test.each(planted)("%s", async (_, bytes, message) => {
    const error = await parseTorch(bytes, "x.pt").catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TorchFileError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/^x\.pt: [^\n]{5,320}$/);
    expect(existsSync("gifgrad_was_here")).toBe(false);
  });

  test("lists that contain themselves, and shared ones whose paths double and double", async () => {
    const wrap = (body: number[]): Uint8Array => zip([["a/data.pkl", Uint8Array.from([0x80, 2, ...body, 0x2e])]]);
    const itself = [0x5d, 0x71, 0, 0x68, 0, 0x61]; // l = []; l.append(l)
    await expect(parseTorch(wrap(itself))).rejects.toThrow("nested too deeply");
    const doubling = [0x5d]; // 40 times: l = [l, l]
    for (let i = 0; i < 40; i++) doubling.push(0x71, i, 0x30, 0x5d, 0x68, i, 0x61, 0x68, i, 0x61);
    await expect(parseTorch(wrap(doubling))).rejects.toThrow("more than");
  });
});

test("flipped bytes and cut files give values or one clear error, quickly, and nothing else", async () => {
  const it: Made = {
    storages: [
      { dtype: "F32", values: [1, 2, 3, 4, 5, 6] },
      { dtype: "I64", values: [7, 8] },
    ],
    tensors: {
      weight: { storage: 0, offset: 0, shape: [2, 3], strides: [1, 2], parameter: true },
      count: { storage: 1, offset: 1, shape: [], strides: [] },
    },
  };
  const files = [torchZip(it), torchZip(it, { deflate: true, protocol: 4 }), torchLegacy(it)];
  const flip = fc.record({ at: fc.nat(), to: fc.nat(255) });
  let [loaded, refused] = [0, 0];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...files),
      fc.array(flip, { maxLength: 4 }),
      fc.option(fc.nat()),
      async (file, flips, cut) => {
        const bytes = Uint8Array.from(file.subarray(0, cut === null ? file.length : cut % file.length));
        for (const { at, to } of flips) if (bytes.length > 0) bytes[at % bytes.length] = to;
        const started = performance.now();
        try {
          const opened = await parseTorch(bytes, "x.pt");
          for (const name of opened.tensors.keys()) await opened.read(name);
          loaded++;
        } catch (error) {
          if (!(error instanceof TorchFileError)) throw error;
          refused++;
        }
        expect(performance.now() - started).toBeLessThan(5000);
      },
    ),
    { numRuns: 3000, seed: 1 },
  );
  expect(Math.min(loaded, refused)).toBeGreaterThan(100);
});

// ---- into parameters

test("parameters are filled from a torch file: nested names, other dtypes, convolutions in torch's order", async () => {
  const values = Array.from({ length: 24 }, (_, i) => i);
  const it: Made = {
    storages: [
      { dtype: "F64", values },
      { dtype: "I64", values: [41, 42] },
    ],
    tensors: {
      "net.conv": { storage: 0, offset: 0, shape: [2, 3, 2, 2], strides: [12, 4, 2, 1], parameter: true },
      "net.count": { storage: 1, offset: 1, shape: [], strides: [] },
      "other.bias": { storage: 0, offset: 0, shape: [2], strides: [1] },
    },
  };
  const path = join(folder, "net.pt");
  await writeFile(path, torchZip(it));
  const conv = new Parameter([2, 2, 3, 2], new Float32Array(24), { layout: "conv" });
  const count = new Parameter([], new Int32Array(1), { dtype: "i32" });
  const into = new Map([
    ["conv", conv],
    ["count", count],
  ]);
  await load(path, into, { prefix: "net." });
  const found = await conv.data(); // [kh, kw, in, out]
  const at = (h: number, w: number, i: number, o: number): number => found[((h * 2 + w) * 3 + i) * 2 + o];
  for (const o of [0, 1])
    for (const i of [0, 1, 2])
      for (const h of [0, 1]) for (const w of [0, 1]) expect(at(h, w, i, o)).toBe(((o * 3 + i) * 2 + h) * 2 + w);
  expect(await count.item()).toBe(42);
  await expect(load(path, into)).rejects.toThrow("extra: net.conv");
  await expect(load(path, into, { prefix: "net.", layout: "own" })).rejects.toThrow("misshapen: conv");
});
