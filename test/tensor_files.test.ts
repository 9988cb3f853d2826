// Files of tensors as bytes: pieces of safetensors and torch files, files written from pieces or behind another program's
// header, and checkpoints in several files with an index. What tensors mean is checkpoint.test.ts and torch.test.ts.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  load,
  openTensors,
  Parameter,
  parseTensors,
  ShardError,
  type TensorStore,
  useDevice,
} from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { openSafetensors, writeBehindHeader, writeSafetensors } from "../engine/safetensors.ts";
import { type Made, torchZip } from "./torch_files.ts";

const folder = mkdtempSync(join(tmpdir(), "tensor-files-"));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

async function bytes(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

const f32 = (...values: number[]) =>
  ({ dtype: "F32", shape: [values.length], values: Float32Array.from(values) }) as const;

describe("pieces", () => {
  test("of a safetensors file are its bytes, and make the same file", async () => {
    const values = Float32Array.from({ length: (2 << 20) + 5 }, (_, i) => i); // more than two pieces of 4 MB
    const tensors = new Map([
      ["half", { dtype: "BF16", shape: [3], values: Float32Array.of(1, -2, 3) }],
      ["long", { dtype: "F32", shape: [(2 << 20) + 5], values }],
    ] as const);
    await writeSafetensors(at("a.safetensors"), tensors, { format: "pt" });
    const file = await openSafetensors(at("a.safetensors"));
    const whole = await bytes(file.pieces("long"));
    expect(whole.equals(Buffer.from(values.buffer))).toBe(true);
    expect(await bytes(file.pieces("long", 5, 7))).toEqual(whole.subarray(20, 28));
    const copies = [...file.tensors].map(
      ([name, info]) => [name, { ...info, pieces: () => file.pieces(name) }] as const,
    );
    await writeSafetensors(at("b.safetensors"), new Map(copies), { format: "pt" });
    expect(readFileSync(at("b.safetensors")).equals(readFileSync(at("a.safetensors")))).toBe(true);
    await file.close();
  });

  // The same six numbers: as they lie, transposed, and from the middle of a storage.
  const views: Made["tensors"] = {
    plain: { storage: 0, offset: 0, shape: [2, 3], strides: [3, 1] },
    turned: { storage: 0, offset: 0, shape: [3, 2], strides: [1, 3] },
    inside: { storage: 0, offset: 2, shape: [2, 2], strides: [1, 1] },
  };
  test.each(["F32", "F64", "BF16", "I16", "U8"] as const)("of a torch file, views of %s included", async (dtype) => {
    const made: Made = { storages: [{ dtype, values: [0, 1, 2, 3, 4, 5] }], tensors: views };
    const little = await bytes((await parseTensors(torchZip(made))).pieces("plain"));
    for (const bigEndian of [false, true]) {
      const file = await parseTensors(torchZip(made, { bigEndian }));
      const width = little.length / 6;
      for (const name of Object.keys(views)) {
        const raw = await bytes(file.pieces(name));
        // Each element's bytes are those of its value in the plain view of the little-endian file.
        const order = [...(await file.readFloat64(name))];
        expect(raw, name).toEqual(Buffer.concat(order.map((v) => little.subarray(v * width, (v + 1) * width))));
        expect(await bytes(file.pieces(name, 1, 3))).toEqual(raw.subarray(width, 3 * width));
      }
    }
  });

  test("too few for a tensor are refused, and nothing is left", async () => {
    const short = {
      dtype: "F32",
      shape: [2],
      pieces: async function* () {
        yield new Uint8Array(4);
      },
    } as const;
    const writing = writeSafetensors(at("short.safetensors"), new Map([["w", short]]));
    await expect(writing).rejects.toThrow('short.safetensors: tensor "w": 4 bytes for F32[2]');
    expect(() => readFileSync(at("short.safetensors"))).toThrow("ENOENT");
  });
});

test("a header of another program keeps its order and its spaces", async () => {
  const json =
    ' {"b" : {"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}  ';
  const text = Buffer.from(json.trimStart());
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const original = Buffer.concat([length, text, Buffer.of(7, 8, 9)]);
  writeFileSync(at("other.safetensors"), original);
  const file = await openSafetensors(at("other.safetensors"));
  await writeBehindHeader(at("again.safetensors"), Buffer.from(await file.header()), (name) => file.pieces(name));
  await file.close();
  expect(readFileSync(at("again.safetensors"))).toEqual(original);
});

describe("a checkpoint in several files", () => {
  const index = (name: string, content: unknown): string => {
    const text = typeof content === "string" ? content : JSON.stringify(content);
    writeFileSync(at(name), text);
    return at(name);
  };
  const open = async (path: string): Promise<TensorStore> => {
    await writeSafetensors(at("w-1.safetensors"), new Map([["a", f32(1, 2)]]), { format: "pt" });
    await writeSafetensors(at("w-2.safetensors"), new Map([["b", f32(3)], ["c", f32(4)]])); // biome-ignore format: as read
    return openTensors(path);
  };
  const MAP = { a: "w-1.safetensors", b: "w-2.safetensors", c: "w-2.safetensors" };

  test("loads as one", async () => {
    useDevice(new ReferenceDevice());
    const file = await open(index("w.safetensors.index.json", { metadata: { total_size: 16 }, weight_map: MAP }));
    const into = new Map(
      ["a", "b", "c"].map(
        (name) => [name, new Parameter([name === "a" ? 2 : 1], [0, 0].slice(name === "a" ? 0 : 1))] as const,
      ),
    );
    await load(file, into);
    expect(await into.get("a")?.data()).toEqual(Float32Array.of(1, 2));
    expect(await into.get("c")?.data()).toEqual(Float32Array.of(4));
    expect(await bytes(file.pieces("b"))).toEqual(Buffer.from(Float32Array.of(3).buffer));
    await file.close();
  });
  test.each<[string, unknown, RegExp]>([
    ["no JSON", "{", /not a valid index of a checkpoint: .*JSON/],
    ["no map", { metadata: {} }, /it has no weight_map from tensors to files$/],
    ["an empty map", { weight_map: {} }, /it has no weight_map/],
    ["a list", { weight_map: ["w-1.safetensors"] }, /it has no weight_map/],
    [
      "a folder above",
      { weight_map: { ...MAP, a: "../w-1.safetensors" } },
      /"a" is said to be in "..\/w-1.safetensors", which is not/,
    ],
    ["an absolute path", { weight_map: { ...MAP, a: "/etc/passwd" } }, /"\/etc\/passwd", which is not the name/],
    [
      "a folder inside",
      { weight_map: { ...MAP, a: "x/w-1.safetensors" } },
      /which is not the name of a weights file beside it/,
    ],
    [
      "a name with NUL",
      { weight_map: { ...MAP, a: "w-1.safetensors\0.bin" } },
      /"w-1.safetensors\\u0000.bin", which is not/,
    ],
    ["itself", { weight_map: { ...MAP, a: "bad.safetensors.index.json" } }, /which is not the name of a weights file/],
    ["a number", { weight_map: { ...MAP, a: 1 } }, /"a" is said to be in 1, which/],
    ["a file that is not there", { weight_map: { ...MAP, a: "w-9.safetensors" } }, /ENOENT.*w-9.safetensors/],
    ["a tensor that is not there", { weight_map: { ...MAP, d: "w-1.safetensors" } }, /"d" is not in w-1.safetensors$/],
    [
      "a tensor it leaves out",
      { weight_map: { a: MAP.a, b: MAP.b } },
      /w-2.safetensors holds "c", which the index places elsewhere or leaves out/,
    ],
    ["a tensor it places elsewhere", { weight_map: { ...MAP, c: MAP.a } }, /"c" is not in w-1.safetensors/],
    [
      "too many files",
      { weight_map: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [`t${i}`, `w-${i}.bin`])) },
      /it names 1025 files; at most 1024/,
    ],
  ])("%s is refused in one line", async (_, content, message) => {
    const error = await open(index("bad.safetensors.index.json", content)).catch((e: Error) => e);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain("\n");
    if (!/ENOENT/.test(message.source)) expect(error).toBeInstanceOf(ShardError);
  });

  test("a named pipe in the place of a file is refused, not waited for", async () => {
    execFileSync("mkfifo", [at("pipe.safetensors")]);
    await expect(openTensors(at("pipe.safetensors"))).rejects.toThrow("pipe.safetensors: is no regular file");
  });
});
