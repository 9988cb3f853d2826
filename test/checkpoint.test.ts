// Checkpoint files: half and bfloat rounding against brute force, the reader against files of the reference implementation
// and against damaged ones, the writer's bytes, and parameters through save and load.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { joinState, LoadError, load, save } from "../engine/checkpoint.ts";
import {
  type Device,
  openDevice,
  Parameter,
  packHalf,
  parseTensors,
  Rng,
  unpackHalf,
  useDevice,
} from "../engine/index.ts";
import { encode } from "../engine/safetensors/elements.ts";
import {
  openSafetensors,
  parseSafetensors,
  SafetensorsError,
  type TensorSource,
  writeSafetensors,
} from "../engine/safetensors.ts";

let folder: string;
let device: Device;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-checkpoint-"));
  device = await openDevice({ device: "reference" });
});
afterAll(async () => {
  device.close();
  useDevice(null);
  await rm(folder, { recursive: true });
});

describe("float16", () => {
  /** Value of a bit pattern by the definition of binary16, written without shifts. */
  const half = (h: number) => {
    const [sign, exponent, mantissa] = [h >= 0x8000 ? -1 : 1, Math.floor(h / 1024) % 32, h % 1024];
    if (exponent === 31) return mantissa > 0 ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return exponent > 0 ? sign * 2 ** (exponent - 25) * (1024 + mantissa) : sign * 2 ** -24 * mantissa;
  };

  it("unpacks all 65,536 patterns, and packs each value back to its pattern", () => {
    for (let h = 0; h < 65_536; h++) {
      const x = unpackHalf(h);
      if (!Object.is(x, half(h))) expect.fail(`pattern ${h}: ${x}, expected ${half(h)}`);
      const back = packHalf(x);
      if (Number.isNaN(x) ? !Number.isNaN(half(back)) : back !== h) expect.fail(`pattern ${h} came back as ${back}`);
    }
  });

  it("rounds to nearest, ties to even, at and beside the middle of every pair of neighbours", () => {
    const step = (x: number, up: number) => new Float32Array(new Uint32Array([bitsOf(x) + up]).buffer)[0];
    // 0x7c00 stands for 65536, as if it were finite: from the middle up, values overflow to infinity.
    for (let h = 0; h < 0x7c00; h++) {
      const middle = (half(h) + (h + 1 === 0x7c00 ? 65_536 : half(h + 1))) / 2; // exact in float32
      const found = [step(middle, -1), middle, step(middle, 1)].map(packHalf);
      const expected = [h, h % 2 ? h + 1 : h, h + 1];
      if (String(found) !== String(expected)) expect.fail(`above ${h}: ${found}, expected ${expected}`);
      if (packHalf(-middle) !== 0x8000 + expected[1]) expect.fail(`above ${h}: the negative differs`);
    }
    expect([1e30, 3.4e38, Infinity, 1e-30, -1e-45].map(packHalf)).toEqual([0x7c00, 0x7c00, 0x7c00, 0, 0x8000]);
  });
});

const bitsOf = (x: number) => new Uint32Array(new Float32Array([x]).buffer)[0];

it("bfloat16 rounds to nearest, ties to even; NaN stays NaN", () => {
  const words = new Uint32Array([
    0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800001, 0xff800000, 0x80000000,
  ]);
  const packed = new Uint16Array(encode(new Float32Array(words.buffer), "BF16").slice().buffer);
  expect(Array.from(packed, (x) => x.toString(16))).toEqual([
    "3f80",
    "3f82",
    "3f81",
    "3f80",
    "7f80",
    "7fc0",
    "ff80",
    "8000",
  ]);
});

// ---- files of the reference implementation (safetensors 0.8.0 for Python) ---------------------------------------------

const golden = fileURLToPath(new URL("../../shared/golden/torch-pickle-a/", import.meta.url));
const present = existsSync(golden);
if (!present) console.log("checkpoint: ../shared is absent, so the files of the reference implementation are skipped");

describe.skipIf(!present)("files of the reference implementation", () => {
  const expectations: Record<string, { expect: string }> = present
    ? JSON.parse(readFileSync(join(golden, "expectations.json"), "utf8"))
    : {};
  const files = Object.entries(expectations).filter(([name]) => name.startsWith("safetensors/"));
  const good = files.filter(([, entry]) => entry.expect.startsWith("load"));
  const bad = files.filter(([, entry]) => entry.expect.startsWith("refuse"));

  it("are all covered", () => {
    expect(files.map(([name]) => name.split("/")[1]).sort()).toEqual(
      present ? readdirSync(join(golden, "safetensors")).sort() : [],
    );
    expect([good.length, bad.length]).toEqual([10, 28]);
  });

  it.each(good)("%s loads, from disk as from memory", async (name) => {
    const file = await openSafetensors(join(golden, name));
    const copy = await parseSafetensors(await readFile(join(golden, name)), name);
    expect([...copy.tensors]).toEqual([...file.tensors]);
    for (const tensor of file.tensors.keys()) expect(await copy.read(tensor)).toEqual(await file.read(tensor));
    await file.close();
  });

  it.each(bad)("%s is refused with its name", async (name) => {
    const error = await openSafetensors(join(golden, name)).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(SafetensorsError);
    expect((error as Error).message).toMatch(/^\/\S+\.safetensors: not a valid safetensors file: [^\n]{10,300}$/);
    await expect(parseSafetensors(await readFile(join(golden, name)))).rejects.toThrow(SafetensorsError);
  });

  it("every element type has the reference's values", async () => {
    const file = await openSafetensors(join(golden, "safetensors/ok_all_dtypes.safetensors"));
    const truth = await openSafetensors(join(golden, "safetensors/ok_all_dtypes_as_f64.safetensors"));
    expect([...file.tensors.keys()].sort()).toEqual([...truth.tensors.keys()].sort());
    for (const name of file.tensors.keys()) {
      expect({ name, values: await file.readFloat64(name) }).toEqual({
        name,
        values: await truth.readFloat64(name),
      });
      expect([...(await file.read(name))]).toEqual([
        ...(await truth.readFloat64(name)).map(name === "F64" ? Math.fround : (x) => x),
      ]);
    }
    await Promise.all([file.close(), truth.close()]);
  });

  it("special halves and bfloats decode and encode as the reference does it", async () => {
    const file = await openSafetensors(join(golden, "safetensors/ok_special_values.safetensors"));
    const f32 = (await file.read("f32")) as Float32Array;
    for (const [short, type] of [
      ["f16", "F16"],
      ["bf16", "BF16"],
    ] as const) {
      const wide = await file.read(`${short}_as_f32`);
      expect(await file.read(short)).toEqual(wide);
      const path = join(folder, `${short}.safetensors`);
      await writeSafetensors(path, new Map([["x", { dtype: type, shape: [f32.length], values: f32 }]]));
      const back = await openSafetensors(path);
      expect(await back.read("x")).toEqual(wide);
      await back.close();
    }
    await file.close();
  });

  it("are written again with the same bytes", async () => {
    for (const name of ["extra_expected.safetensors", "safetensors/ok_special_values.safetensors"]) {
      const file = await openSafetensors(join(golden, name));
      const tensors = new Map<string, TensorSource>();
      // Backwards, so that the order is the writer's.
      for (const [key, { dtype, shape }] of [...file.tensors].reverse()) {
        tensors.set(key, { dtype: dtype as "F32", shape, values: () => file.read(key) });
      }
      const path = join(folder, "again.safetensors");
      await writeSafetensors(path, tensors, file.metadata);
      // NaN payloads are not kept by short floats; the one NaN here is the canonical one.
      expect((await readFile(path)).equals(await readFile(join(golden, name)))).toBe(true);
      await file.close();
    }
  });

  it("a tensor called __proto__ is an ordinary name", async () => {
    const file = await openSafetensors(join(golden, "safetensors/proto_key.safetensors"));
    expect([...file.tensors.keys()]).toEqual(["__proto__"]);
    expect(await file.read("__proto__")).toHaveLength(8);
    expect(({} as { dtype?: unknown }).dtype).toBeUndefined();
    await file.close();
  });
});

// ---- made-up files -----------------------------------------------------------------------------------------------------

function fileOf(header: string, dataBytes: number, length = new TextEncoder().encode(header).length): Uint8Array {
  const text = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + text.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(text, 8);
  return out;
}

describe("the reader refuses", () => {
  const a = (fields: string) => `{"a":{${fields}}}`;
  it.each([
    ["a length over the cap", fileOf("{}", 0, 100_000_001), /header of 100000001 bytes; at most 100000000/],
    ["a length over the file", fileOf("{}", 0, 3), /header of 3 bytes in a file of 10/],
    [
      "a name that comes twice with the same bytes",
      fileOf(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061" :{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
      /names "a" twice/,
    ],
    [
      "a field that comes twice",
      fileOf(a('"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]'), 1),
      /names "dtype" twice/,
    ],
    [
      "an unknown field",
      fileOf(a('"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]'), 1),
      /tensor "a": unknown field "stride"/,
    ],
    [
      "a shape that overflows before a zero",
      fileOf(a('"dtype":"U8","shape":[9007199254740991,2,0],"data_offsets":[0,0]'), 0),
      /tensor "a": .*too large/,
    ],
    [
      "bytes that do not fill the shape",
      fileOf(a('"dtype":"F32","shape":[2],"data_offsets":[0,4]'), 4),
      /F32\[2\] takes 8 bytes, data_offsets span 4/,
    ],
    [
      "a tensor behind the end",
      fileOf(a('"dtype":"F32","shape":[2],"data_offsets":[0,8]'), 4),
      /tensor "a": ends at byte 8 of 4/,
    ],
    [
      "bytes of nobody",
      fileOf(a('"dtype":"F32","shape":[1],"data_offsets":[0,4]'), 6),
      /2 bytes behind the last tensor/,
    ],
  ])("%s", async (_, bytes, message) => {
    await expect(parseSafetensors(bytes)).rejects.toThrow(message);
  });

  it("every truncation, and survives every changed byte of the header", async () => {
    const path = join(folder, "small.safetensors");
    await writeSafetensors(
      path,
      new Map([["w", { dtype: "F32", shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) }]]),
      { k: "v" },
    );
    const bytes = await readFile(path);
    for (let n = 0; n < bytes.length; n++)
      await expect(parseSafetensors(bytes.subarray(0, n))).rejects.toThrow(SafetensorsError);
    const headerEnd = bytes.length - 16;
    for (let i = 0; i < headerEnd; i++) {
      for (const flip of [1, 0x20, 0x80]) {
        const broken = Uint8Array.from(bytes);
        broken[i] ^= flip;
        await parseSafetensors(broken).catch((error: unknown) => expect(error).toBeInstanceOf(SafetensorsError));
      }
    }
  });

  it("a 64-bit integer that needs more than 32 bits, naming the element", async () => {
    const file = fileOf('{"n":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}', 16);
    new DataView(file.buffer).setBigInt64(file.length - 8, 2n ** 31n, true);
    const open = await parseSafetensors(file, "w.safetensors");
    await expect(open.read("n")).rejects.toThrow(
      /^w.safetensors: tensor "n" \(I64\): element 1 is 2147483648, which Int32Array/,
    );
    expect(await open.readFloat64("n")).toEqual(Float64Array.of(0, 2 ** 31));
    await expect(open.read("m")).rejects.toThrow(/no tensor "m"/);
  });
});

describe("the writer", () => {
  const dtypes = ["F32", "I32", "U32"] as const;
  const values = { F32: Float32Array, I32: Int32Array, U32: Uint32Array };
  /** Bit patterns from a seed, NaNs left out: their payload is not part of the promise. */
  const drawn = (dtype: (typeof dtypes)[number], length: number, seed: number) => {
    const words = Uint32Array.from({ length }, (_, i) => Math.imul(seed + i, 0x9e3779b1) & 0xbfffffff);
    return new values[dtype](words.buffer);
  };

  it("gives back what it was given, whatever the names, types and shapes", async () => {
    const path = join(folder, "drawn.safetensors");
    const name = fc.oneof(fc.constantFrom("", "0", "10", "2", "__proto__", 'a"b', "词"), fc.string({ maxLength: 6 }));
    const entry = fc.record({
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    });
    const entries = fc.array(fc.tuple(name, entry), { maxLength: 6 });
    const run = fc.asyncProperty(entries, fc.nat(), async (list, seed) => {
      const tensors = new Map<string, TensorSource>(
        list.map(([key, { dtype, shape }], i) => [
          key,
          {
            dtype,
            shape,
            values: drawn(
              dtype,
              shape.reduce((a, b) => a * b, 1),
              seed + i,
            ),
          },
        ]),
      );
      const metadata = { seed: String(seed), __proto__x: "y" };
      await writeSafetensors(path, tensors, metadata);
      const bytes = await readFile(path);
      const file = await parseSafetensors(bytes);
      expect(file.metadata).toEqual(metadata);
      expect(new Set(file.tensors.keys())).toEqual(new Set(tensors.keys()));
      for (const [key, tensor] of tensors) {
        const info = file.tensors.get(key);
        expect(info).toMatchObject({ dtype: tensor.dtype, shape: tensor.shape });
        expect(await file.read(key)).toEqual(tensor.values);
      }
      expect(
        (bytes.length - [...file.tensors.values()].reduce((sum, { begin, end }) => sum + end - begin, 0)) % 8,
      ).toBe(0);
      await writeSafetensors(path, new Map([...tensors].reverse()), metadata);
      expect((await readFile(path)).equals(bytes)).toBe(true);
    });
    await fc.assert(run, { numRuns: 30, seed: 1 });
  });

  it("leaves the old file and nothing else when it fails half-way", async () => {
    const inside = await mkdtemp(join(folder, "atomic-"));
    const path = join(inside, "w.safetensors");
    await writeFile(path, "old");
    const broken = new Map<string, TensorSource>([
      ["a", { dtype: "F32", shape: [1], values: Float32Array.of(1) }],
      ["b", { dtype: "F32", shape: [2], values: async () => Float32Array.of(1) }],
    ]);
    await expect(writeSafetensors(path, broken)).rejects.toThrow(/w.safetensors: tensor "b": 1 values for shape \[2\]/);
    expect(await readdir(inside)).toEqual(["w.safetensors"]);
    expect(await readFile(path, "utf8")).toBe("old");
    const wrongArray = new Map<string, TensorSource>([["c", { dtype: "I32", shape: [1], values: Float32Array.of(1) }]]);
    await expect(writeSafetensors(path, wrongArray)).rejects.toThrow(
      /I32 is written from Int32Array, got Float32Array/,
    );
  });
});

// ---- parameters --------------------------------------------------------------------------------------------------------

describe("save and load", () => {
  const model = (fill: number) =>
    new Map<string, Parameter>([
      ["layer.weight", new Parameter([2, 3], new Float32Array(6).fill(fill + 0.1))],
      ["layer.bias", new Parameter([3], new Float32Array(3).fill(-fill))],
      ["codes", new Parameter([2], Int32Array.of(-fill, fill), { dtype: "i32" })],
      ["mask", new Parameter([2], Uint32Array.of(1, 0), { dtype: "bool" })],
      ["rng", new Rng(fill * 2 ** 33 + 0xfffffff0).state],
    ]);
  const contents = async (state: Map<string, Parameter>) =>
    Object.fromEntries(await Promise.all([...state].map(async ([name, p]) => [name, await p.data()] as const)));
  const path = (name: string) => join(folder, `${name}.safetensors`);

  it("are the identity on every dtype, bit for bit, and keep the metadata", async () => {
    const [from, to] = [model(7), model(3)];
    await save(path("identity"), from, { step: "12" });
    expect(await load(path("identity"), to)).toEqual({ step: "12" });
    expect(await contents(to)).toEqual(await contents(from));
    expect((await contents(to)).rng).toEqual(Uint32Array.of(0xfffffff0, 14, 0, 0));
    await save(path("identity2"), to, { step: "12" });
    expect((await readFile(path("identity2"))).equals(await readFile(path("identity")))).toBe(true);
  });

  it("in short floats round to the nearest value that the type has, ties to even, and leave the other dtypes alone", async () => {
    // The neighbours of x among values with `bits` bits of precision from 2^least on, by arithmetic instead of bit patterns.
    const rounded = (x: number, bits: number, least: number): number => {
      const unit = 2 ** Math.max(least, Math.floor(Math.log2(Math.abs(x))) + 1 - bits);
      const low = Math.floor(x / unit);
      const rest = x / unit - low;
      return (rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low) * unit;
    };
    const number = fc.tuple(fc.float({ min: 1, max: 2, noNaN: true }), fc.integer({ min: -20, max: 14 }), fc.boolean());
    await fc.assert(
      fc.asyncProperty(fc.array(number, { minLength: 1, maxLength: 20 }), async (drawn) => {
        const values = Float32Array.from(drawn, ([m, e, negative]) => (negative ? -m : m) * 2 ** e);
        const make = (data: Float32Array) =>
          new Map<string, Parameter>([
            ["w", new Parameter([data.length], data)],
            ["n", new Parameter([1], Int32Array.of(-5), { dtype: "i32" })],
          ]);
        for (const [floats, bits, least] of [
          ["BF16", 8, -133],
          ["F16", 11, -24],
        ] as const) {
          const back = make(new Float32Array(values.length));
          await save(path("short"), make(values), {}, { floats });
          await load(path("short"), back);
          const found = await contents(back);
          expect([...found.w]).toEqual([...values].map((x) => rounded(x, bits, least)));
          expect(found.n).toEqual(Int32Array.of(-5));
          await save(path("short2"), back, {}, { floats }); // what the type holds is kept
          expect((await readFile(path("short2"))).equals(await readFile(path("short")))).toBe(true);
        }
      }),
      { numRuns: 40, seed: 1 },
    );
  });

  it("write a tied weight under both names, and take it from both or one, if they agree", async () => {
    const tied = (v: number[]) => {
      const p = new Parameter([2], v);
      return new Map([
        ["embedding", p],
        ["head", p],
      ]);
    };
    await save(path("tied"), tied([1, 2]));
    const [both, one] = [tied([0, 0]), tied([0, 0])];
    await load(path("tied"), both);
    expect(await contents(both)).toEqual(await contents(tied([1, 2])));
    await save(path("one"), new Map([["head", new Parameter([2], [3, 4])]]));
    await load(path("one"), one);
    expect(Object.keys(await contents(one))).toEqual(["embedding", "head"]);
    expect([...(await contents(one)).embedding]).toEqual([3, 4]);
    const untied = { embedding: new Parameter([2], [1, 2]), head: new Parameter([2], [1, 3]) };
    await save(path("untied"), joinState(untied));
    await expect(load(path("untied"), one)).rejects.toThrow("tied here, different there: embedding and head");
    expect([...(await contents(one)).head]).toEqual([3, 4]);
  });

  it("joins the state of several parts under their names, and refuses one name for two", () => {
    const [w, shadow, counter] = [1, 2, 3].map((v) => new Parameter([], [v]));
    const of = (p: Parameter) => new Map([["w", p]]);
    const all = joinState({ net: of(w), ema: of(shadow), rng: counter });
    expect([...all]).toEqual([
      ["net.w", w],
      ["ema.w", shadow],
      ["rng", counter],
    ]);
    expect(() => joinState({ net: of(w), "net.w": shadow })).toThrow("two parameters are called net.w");
  });

  it("names every missing, extra and misshapen parameter at once and loads nothing", async () => {
    await save(path("other"), model(7));
    const to = model(3);
    to.set("layer.bias", new Parameter([4], new Float32Array(4)));
    to.set("codes", new Parameter([2], new Float32Array(2)));
    to.set("head", new Parameter([1], new Float32Array(1)));
    to.delete("mask");
    const before = await contents(to);
    const error = (await load(path("other"), to).catch((thrown: unknown) => thrown)) as Error;
    expect(error).toBeInstanceOf(LoadError);
    for (const line of [
      "misshapen: layer.bias: F32[3] in the file, f32[4] here",
      "misshapen: codes: I32[2] in the file, f32[2] here",
      "extra: mask",
      "missing: head",
    ]) {
      expect(error.message).toContain(line);
    }
    expect(error.message.split("\n")).toHaveLength(5);
    expect(await contents(to)).toEqual(before);
  });

  it("partial takes what both have, but never a wrong shape", async () => {
    await save(path("partial"), model(7));
    const head = new Parameter([1], Float32Array.of(9));
    const bias = new Parameter([3], new Float32Array(3));
    await load(
      path("partial"),
      new Map([
        ["head", head],
        ["layer.bias", bias],
      ]),
      { partial: true },
    );
    expect([await head.data(), await bias.data()]).toEqual([Float32Array.of(9), Float32Array.of(-7, -7, -7)]);
    const wrong = new Map([["layer.bias", new Parameter([2], new Float32Array(2))]]);
    await expect(load(path("partial"), wrong, { partial: true })).rejects.toThrow(LoadError);
    await expect(load(folder, wrong)).rejects.toThrow(`${folder}: is a folder, not a file of tensors`);
  });

  it("an open file loads like its path, and its misfits are named", async () => {
    const path = join(folder, "open.safetensors");
    await save(path, new Map([["w", new Parameter([2], new Float32Array([1, 2]))]]), { from: "here" });
    const file = await parseTensors(await readFile(path));
    const w = new Parameter([2], new Float32Array(2));
    expect(await load(file, new Map([["w", w]]))).toEqual({ from: "here" });
    expect([...(await w.data())]).toEqual([1, 2]);
    await expect(load(file, new Map())).rejects.toThrow("the file does not fit:\n  extra: w");
  });
  it("rename maps the file's names, and null leaves a tensor out", async () => {
    await save(path("renamed"), model(7));
    const bias = new Parameter([3], new Float32Array(3));
    await load(path("renamed"), new Map([["b", bias]]), { rename: (name) => (name === "layer.bias" ? "b" : null) });
    expect(await bias.data()).toEqual(Float32Array.of(-7, -7, -7));
    const clash = load(path("renamed"), new Map([["b", bias]]), { rename: () => "b" });
    await expect(clash).rejects.toThrow(/twice: b, from layer.bias and layer.weight/);
  });
});
