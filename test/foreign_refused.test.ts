// Checkpoints of other programs that do not fit, or would do harm: refused in one line with nothing left behind. And memory:
// bounded while a large one is read.

import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runExport } from "../cli/import.ts";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { encodeHeader } from "../engine/safetensors/header.ts";
import { exportImported } from "../train/foreign/export.ts";
import { importCheckpoint } from "../train/foreign/import.ts";
import {
  CONFIGS,
  type Parts,
  publishedWeights,
  put,
  randomParts,
  safetensorsBytes,
  type Weight,
  writePipeline,
} from "./foreign_files.ts";
import { torchCalling } from "./torch_files.ts";

const root = mkdtempSync(join(tmpdir(), "foreign-"));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
/** A folder that is not there yet. */
const fresh = (): string => join(root, `${++folders}`);

let parts: Parts;
beforeAll(() => {
  useDevice(new ReferenceDevice());
  parts = randomParts();
});

describe("refused in one line, with nothing left behind:", () => {
  const prepared = async (change: (dir: string) => void | Promise<void>): Promise<string> => {
    const dir = fresh();
    await writePipeline(dir, parts);
    await change(dir);
    return dir;
  };
  const unet = "unet/diffusion_pytorch_model.safetensors";
  const withUnet = (change: (weights: Map<string, Weight>) => void) => async (dir: string) => {
    const weights = new Map((await publishedWeights(parts)).unet);
    change(weights);
    put(join(dir, unet), safetensorsBytes(weights, "F32"));
  };
  const withConfig = (over: object) => (dir: string) =>
    put(join(dir, "unet/config.json"), JSON.stringify({ ...CONFIGS.unet, ...over }));
  /** The file's bytes with its JSON header changed. */
  const withHeader = (change: (header: Record<string, object>) => void) => (dir: string) => {
    const bytes = readFileSync(join(dir, unet));
    const end = 8 + Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, end));
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    put(join(dir, unet), Buffer.concat([length, text, bytes.subarray(end)]));
  };
  const NAME = "conv_in.weight";

  test.each<[string, (dir: string) => void | Promise<void>, RegExp]>([
    [
      "a missing tensor",
      withUnet((w) => void w.delete(NAME)),
      /does not fit the unet .*: 1 missing: "conv_in.weight"$/,
    ],
    ["an extra one", withUnet((w) => void w.set("x\0y\nz", { shape: [1], values: [0] })), /1 extra: "x\\u0000y\\nz"$/],
    [
      "a misshapen one",
      withUnet((w) => void w.set(NAME, { shape: [2], values: [0, 0] })),
      /1 misshapen: "conv_in.weight" is F32\[2\], expected floats \[8,4,3,3\]$/,
    ],
    [
      "one of whole numbers",
      withUnet((w) => void w.set("conv_in.bias", { shape: [8], values: Array(8).fill(1), whole: true })),
      /"conv_in.bias" is I64\[8\], expected floats \[8\]/,
    ],
    [
      "very many missing",
      (dir) => put(join(dir, unet), safetensorsBytes(new Map([["a", { shape: [1], values: [0] }]]), "F32")),
      /\d+ missing: "conv_in.weight", .*, and \d+ more; 1 extra: "a"$/,
    ],
    [
      "a huge header",
      (dir) => put(join(dir, unet), Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 1, 0, 0]), Buffer.alloc(64)])),
      /header of 1099511627776 bytes; at most/,
    ],
    [
      "offsets that overlap",
      withHeader((h) => Object.assign(h["conv_out.bias"], { data_offsets: [0, 16] })),
      /inside the one before/,
    ],
    ["an absurd shape", withHeader((h) => Object.assign(h[NAME], { shape: [2 ** 40, 2 ** 40] })), /is too large/],
    ["a file that is cut off", (dir) => put(join(dir, unet), readFileSync(join(dir, unet)).subarray(0, -1)), /cut off/],
    [
      "a pickle with code",
      (dir) => {
        rmSync(join(dir, unet));
        put(join(dir, "unet/diffusion_pytorch_model.bin"), torchCalling("os.system"));
      },
      /refused: it uses os\.system/,
    ],
    [
      "an index that leads elsewhere",
      (dir) => {
        rmSync(join(dir, unet));
        put(join(dir, `${unet}.index.json`), JSON.stringify({ weight_map: { a: "../../x.safetensors" } }));
      },
      /which is not the name of a weights file beside it/,
    ],
    ["a configuration that is none", (dir) => put(join(dir, "unet/config.json"), "{"), /unet\/config.json is not JSON/],
    [
      "a configuration nested a million deep",
      (dir) => put(join(dir, "unet/config.json"), `${'{"a":'.repeat(1e6)}1${"}".repeat(1e6)}`),
      /unet\/config\.json is (nested more than 64 levels deep|not JSON)/,
    ],
    ["a list for a configuration", (dir) => put(join(dir, "unet/config.json"), "[]"), /expected an object with fields/],
    [
      "a million layers",
      withConfig({ layers_per_block: 1e6 }),
      /layers_per_block is 1000000: expected a whole number from 1 to 256/,
    ],
    [
      "a million levels",
      withConfig({ block_out_channels: Array(1e6).fill(8) }),
      /expected a list of 1 to 16 whole numbers/,
    ],
    ["layers that are not here", withConfig({ class_embed_type: "timestep" }), /class_embed_type is "timestep"/],
    ["heads that do not divide", withConfig({ attention_head_dim: [3, 4] }), /does not divide the 8 channels/],
    [
      "a network of videos",
      withConfig({
        _class_name: "UNet3DConditionModel",
        down_block_types: ["CrossAttnDownBlock3D", "DownBlock3D"],
        up_block_types: ["UpBlock3D", "CrossAttnUpBlock3D"],
        attention_head_dim: 4,
      }),
      /videos, not of images: not sd21/,
    ],
    [
      "another sampler's schedule",
      (dir) => put(join(dir, "scheduler/scheduler_config.json"), '{"beta_schedule": "?"}'),
      /beta_schedule is "\?": expected one of/,
    ],
    [
      "weights behind a link to nowhere",
      (dir) => {
        rmSync(join(dir, unet));
        symlinkSync(join(dir, "gone"), join(dir, unet));
      },
      /unet: no weights, of which config\.json speaks: looked for .*; neither a file .*: diffusion_pytorch_model\.safetens/,
    ],
    [
      "weights that are a pipe",
      (dir) => {
        rmSync(join(dir, unet));
        execFileSync("mkfifo", [join(dir, unet)]);
      },
      /unet: no weights, of which config\.json speaks/,
    ],
    [
      "a configuration behind a link to nowhere",
      (dir) => {
        rmSync(join(dir, "unet/config.json"));
        symlinkSync(join(dir, "gone"), join(dir, "unet/config.json"));
      },
      /unet\/config\.json: neither a file nor a folder/,
    ],
    [
      "a part that the pipeline's index lists and that is not there",
      (dir) => {
        rmSync(join(dir, "vae"), { recursive: true });
        put(join(dir, "model_index.json"), '{ "unet": ["diffusers", "A"], "vae": ["diffusers", "AutoencoderKL"] }');
      },
      /vae: no weights, of which model_index\.json speaks/,
    ],
    [
      "an empty folder",
      (dir) => {
        for (const part of Object.keys(CONFIGS)) rmSync(join(dir, part), { recursive: true });
      },
      /holds no sd21: looked for folders like unet\//,
    ],
  ])("%s", async (_, change, message) => {
    const [dir, out] = [await prepared(change), fresh()];
    const before = readdirSync(root);
    const error = await importCheckpoint(dir, "sd21", out).catch((e: Error) => e);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain("\n");
    expect((error as Error).message.length).toBeLessThan(1000);
    expect(readdirSync(root)).toEqual(before);
  });

  test("a place that is taken, and a file of something else", async () => {
    const dir = await prepared(() => {});
    await expect(importCheckpoint(dir, "sd21", dir)).rejects.toThrow(
      "is there already and not empty: give another folder",
    );
    await expect(importCheckpoint(join(dir, unet), "clip", fresh())).rejects.toThrow(
      /neither a config.json of transformers/,
    );
    await expect(importCheckpoint(join(dir, "none"), "sd21", fresh())).rejects.toThrow("ENOENT");
  });

  test("a run of VideoGPT, for which diffusers has no place", async () => {
    const [run, out] = [fresh(), fresh()];
    put(join(run, "vqvae/config.json"), "{}");
    await expect(runExport({ run, out })).rejects.toThrow(
      `${run} holds videogpt: export writes the layout of diffusers`,
    );
    expect(readdirSync(root)).not.toContain(basename(out));
  });

  test("a record that was changed to lead elsewhere", async () => {
    const [dir, here, back] = [await prepared(() => {}), fresh(), fresh()];
    await importCheckpoint(dir, "sd21", here);
    const record = readFileSync(join(here, "import.json"), "utf8");
    put(join(here, "import.json"), record.replace('"unet/diffusion', '"../unet/diffusion'));
    await expect(exportImported(here, back)).rejects.toThrow(
      'is said to be from "../unet/diffusion_pytorch_model.safetensors"',
    );
  });
});

test("a large file takes a fraction of its largest tensor in memory", async () => {
  const [dir, out] = [fresh(), fresh()];
  // Two embeddings of 192 MB, holes but for their beginnings, and nothing else of size.
  const config = {
    ...CONFIGS.text_encoder,
    vocab_size: 1_000_000,
    max_position_embeddings: 1_000_000,
    hidden_size: 48,
  };
  put(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1, intermediate_size: 4 }));
  const big = { dtype: "F32", shape: [1_000_000, 48] } as const;
  const entries = (
    prefix: string,
    shapes: Record<string, readonly number[]>,
  ): [string, { dtype: "F32"; shape: readonly number[] }][] =>
    Object.entries(shapes).map(([name, shape]) => [`${prefix}${name}`, { dtype: "F32", shape }]);
  const attention = ["q", "k", "v", "out"].flatMap(
    (x) =>
      [
        [`${x}_proj.weight`, [48, 48]],
        [`${x}_proj.bias`, [48]],
      ] as const,
  );
  const tensors = [
    ["text_model.embeddings.token_embedding.weight", big] as const,
    ["text_model.embeddings.position_embedding.weight", big] as const,
    ...entries("text_model.encoder.layers.0.self_attn.", Object.fromEntries(attention)),
    ...entries("text_model.encoder.layers.0.", {
      ...{ "layer_norm1.weight": [48], "layer_norm1.bias": [48], "layer_norm2.weight": [48], "layer_norm2.bias": [48] },
      ...{ "mlp.fc1.weight": [4, 48], "mlp.fc1.bias": [4], "mlp.fc2.weight": [48, 4], "mlp.fc2.bias": [48] },
    }),
    ...entries("text_model.", { "final_layer_norm.weight": [48], "final_layer_norm.bias": [48] }),
  ];
  const header = encodeHeader(tensors, {}, (what) => {
    throw new Error(what);
  });
  put(join(dir, "model.safetensors"), header);
  const file = openSync(join(dir, "model.safetensors"), "r+");
  const bytes = tensors.reduce((sum, [, { shape }]) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
  ftruncateSync(file, header.length + bytes);
  writeSync(file, Buffer.from("begin"), 0, 5, header.length);
  closeSync(file);

  const before = process.memoryUsage().rss;
  let most = before;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 5);
  await importCheckpoint(dir, "sd21", out);
  clearInterval(watch);
  const MB = 2 ** 20;
  expect(bytes / MB).toBeGreaterThan(360);
  // The promise is the largest tensor, 183 MB, and 256 MB; it takes pieces of 4 MB and what the collector has not got to.
  expect((most - before) / MB).toBeLessThan(128);
});
