// Layouts of foreign checkpoint files: what a file's tensors become here, by a made-up layout; and what is refused.

import { describe, expect, test } from "vitest";
import { LoadError, Parameter, parseTensors, type TensorFile, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { encodeHeader } from "../engine/safetensors/header.ts";
import { below, byName, byRules, type Layout, loadForeign } from "../models/checkpoints/layout.ts";

/** A file of f32 tensors that count up: element i of a tensor is i. */
async function file(shapes: Readonly<Record<string, readonly number[]>>): Promise<TensorFile> {
  const entries = Object.entries(shapes).map(([name, shape]) => [name, { dtype: "F32", shape }] as const);
  const counts = entries.map(([, { shape }]) =>
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i),
  );
  const header = encodeHeader(entries, {}, (what) => {
    throw new Error(what);
  });
  return parseTensors(Buffer.concat([header, ...counts.map((c) => Buffer.from(c.buffer))]));
}

const layout: Layout = byRules([
  { from: /(.*)\.in_proj/, to: ["$1.q", "$1.k", "$1.v"] },
  { from: /proj/, to: "out.weight", transposed: true },
  { from: /.*position_ids/, to: [] },
  { from: /old\.(.*)/, to: "new.$1" },
]);

const zeros = (shape: readonly number[], layout: "plain" | "conv" = "plain"): Parameter =>
  new Parameter(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)), { layout });

/** Names and values of `into` after loading. */
async function loaded(
  from: TensorFile,
  into: Readonly<Record<string, Parameter>>,
  by: Layout = layout,
): Promise<Record<string, readonly number[]>> {
  useDevice(new ReferenceDevice());
  await loadForeign(from, new Map(Object.entries(into)), by);
  const values = Object.entries(into).map(
    async ([name, p]): Promise<[string, number[]]> => [name, [...(await p.data())]],
  );
  return Object.fromEntries(await Promise.all(values));
}

describe("a layout", () => {
  test("cuts fused rows, turns matrices, renames, passes over what is no weight", async () => {
    const from = await file({ "a.in_proj": [6, 1], proj: [2, 3], "old.x": [2], "a.position_ids": [1, 4] });
    const into = { "a.q": zeros([2, 1]), "a.k": zeros([2, 1]), "a.v": zeros([2, 1]), "out.weight": zeros([3, 2]) };
    expect(await loaded(from, { ...into, "new.x": zeros([2]) })).toEqual({
      "a.q": [0, 1],
      "a.k": [2, 3],
      "a.v": [4, 5],
      "out.weight": [0, 3, 1, 4, 2, 5],
      "new.x": [0, 1],
    });
  });
  test("takes 1x1 convolutions for linear layers, and keeps reordering kernels", async () => {
    const from = await file({ linear: [3, 2, 1, 1], kernel: [1, 2, 2, 1], fused: [4, 2, 1] });
    const into = { linear: zeros([3, 2]), kernel: zeros([2, 1, 2, 1], "conv"), a: zeros([2, 2]), b: zeros([2, 2]) };
    expect(await loaded(from, into, byRules([{ from: /fused/, to: ["a", "b"] }]))).toEqual({
      linear: [0, 1, 2, 3, 4, 5],
      kernel: [0, 2, 1, 3],
      a: [0, 1, 2, 3],
      b: [4, 5, 6, 7],
    });
  });
  test("of one part of a file", async () => {
    const from = await file({ "model.old.x": [2], "other.y": [3] });
    expect(await loaded(from, { "new.x": zeros([2]) }, below("model.", layout))).toEqual({ "new.x": [0, 1] });
  });
  test("by a function of names", async () => {
    const from = await file({ x: [1], skipped: [1] });
    const rename = (name: string): string | null => (name === "skipped" ? null : `my.${name}`);
    expect(await loaded(from, { "my.x": zeros([1]) }, byName(rename))).toEqual({ "my.x": [0] });
  });
});

describe("what does not fit is named:", () => {
  test.each<[string, Record<string, number[]>, RegExp]>([
    ["missing", { extra: [1] }, /^the file does not fit:\n {2}extra: extra\n {2}missing: new.x$/],
    ["misshapen", { "old.x": [3] }, /misshapen: new.x: F32\[3\] in the file, f32\[2\] here/],
    ["two for one", { "old.x": [2], "new.x": [2] }, /twice: new.x, from old.x and new.x/],
    ["rows that cannot be cut", { "a.in_proj": [4, 2] }, /not in 3 equal parts: a.in_proj, \[4,2\]/],
    ["rows of a number", { "a.in_proj": [] }, /not in 3 equal parts: a.in_proj/],
    ["a matrix that is none", { proj: [2] }, /no matrix: proj, \[2\]/],
    ["axes in another order", { "old.x": [1, 2, 2] }, /misshapen: new.x/],
  ])("%s", async (_, shapes, message) => {
    const load = loadForeign(await file(shapes), new Map([["new.x", zeros([2])]]), layout);
    const error = await load.catch((e: Error) => e);
    expect(error).toBeInstanceOf(LoadError);
    expect((error as Error).message).toMatch(message);
  });
});
