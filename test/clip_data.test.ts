// What CLIP reads: pictures as Pillow resizes them, tokenizers as checkpoints carry them, and the golden kinds of both with
// mistakes planted.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { CLIP_PREPROCESS, clipPreprocess, resizeBytes, resizeShorter } from "../data/clip_preprocess.ts";
import { hasTokenizer, openTokenizer } from "../data/tokenizer_folder.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { withoutVocabulary } from "../eval/golden/clip_tokenizer.ts";
import { golden } from "../eval/golden/index.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures } from "./golden_failures.ts";

const temporary: string[] = [];
afterAll(() => {
  for (const folder of temporary) rmSync(folder, { recursive: true });
});

function folder(files: Readonly<Record<string, string | Buffer>>): string {
  const path = mkdtempSync(join(tmpdir(), "clip-"));
  temporary.push(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}

describe("pictures", () => {
  const grey = (width: number, values: readonly number[]) => ({
    width,
    height: values.length / width,
    rgb: Uint8Array.from(values.flatMap((v) => [v, v, v])),
  });
  const first = ({ rgb }: { rgb: Uint8Array }): number[] => [...rgb].filter((_, i) => i % 3 === 0);

  test("two pixels from four: the kernel is twice as wide, and bytes are rounded by hand", () => {
    // Keys' kernel at (k + 0.5 - 1) / 2 for k = 0..3 around the centre 1: 0.8671875 twice, 0.2265625, -0.0703125; the sum is
    // 1.890625. (100 (0.8671875) + 200 (0.8671875) + 50 (0.2265625) + 10 (-0.0703125)) / 1.890625 = 143.2.
    expect(first(resizeBytes(grey(4, [100, 200, 50, 10]), 2, 1, "bicubic"))[0]).toBe(143);
  });
  test("overshoot is cut at 0 and 255", () => {
    expect(first(resizeBytes(grey(4, [0, 0, 255, 255]), 8, 1, "bicubic"))).toEqual([0, 0, 0, 52, 203, 255, 255, 255]);
  });
  test("columns come before rows, each rounded", () => {
    const picture = grey(2, [0, 1, 1, 0]);
    expect(first(resizeBytes(picture, 1, 1, "bilinear"))).toEqual([1]); // (0 + 1) / 2 rounds up in both rows, then stays
  });
  test("the longer side is rounded down, and the middle is cut out of it", () => {
    const picture = grey(3, [0, 50, 100, 0, 50, 100]);
    expect(resizeShorter(picture, 3, "bicubic")).toMatchObject({ width: 4, height: 3 });
    const o = { ...CLIP_PREPROCESS, size: 2, crop: 2, mean: [0, 0.5, 1], std: [1, 0.5, 2] };
    // A margin of one pixel: all of it at the end.
    expect([...clipPreprocess(picture, o)].slice(0, 6)).toEqual(
      [0, -1, -0.5, 50 / 255, (50 / 255 - 0.5) / 0.5, (50 / 255 - 1) / 2].map(Math.fround),
    );
    expect(() => clipPreprocess(picture, { ...o, crop: 3 })).toThrow("a square of 3 pixels does not fit 3 x 2");
  });
});

describe("tokenizers in folders", () => {
  const texts = ["a cute cat waving its paw", "a cute cute cat", "waving 3 paws, it's a cat"];
  const trained = trainTokenizer(texts, { vocabSize: 560 });
  const { vocab, merges } = trained.file.model;
  const lines = ["#version: 0.2", ...merges.map((m) => (m as string[]).join(" ")), ""].join("\n");

  test.each<[string, Record<string, string | Buffer>]>([
    ["tokenizer.json", { "tokenizer.json": JSON.stringify(trained.file) }],
    ["vocab.json and merges.txt", { "vocab.json": JSON.stringify(vocab), "merges.txt": lines }],
    ["merges alone, whose ids follow", { "merges.txt": lines }],
    [
      "OpenAI's compressed list",
      { "bpe_simple_vocab_16e6.txt.gz": gzipSync(`"bpe.txt#version: 0.2\n${lines.slice(14)}`) },
    ],
  ])("%s", async (_, files) => {
    const path = folder(files);
    expect(await hasTokenizer(path)).toBe(true);
    const read = await openTokenizer(path);
    for (const text of [...texts, "unseen words"]) expect(read.encodePadded(text)).toEqual(trained.encodePadded(text));
  });
  test("pads with the token that tokenizer_config.json names, unless told otherwise", async () => {
    const path = folder({
      "merges.txt": lines,
      "tokenizer_config.json": '{"pad_token": {"content": "<|endoftext|>"}}',
    });
    expect((await openTokenizer(path)).padId).toBe(trained.endId);
    expect((await openTokenizer(path, { padId: 0 })).padId).toBe(0);
  });
  const bomb = gzipSync(Buffer.alloc(2 ** 26 + 1));
  test.each<[string, Record<string, string | Buffer>, RegExp]>([
    ["a bomb", { "bpe_simple_vocab_16e6.txt.gz": bomb }, /16e6.txt.gz: holds more than 67108864 bytes/],
    ["a damaged gz", { "bpe_simple_vocab_16e6.txt.gz": "not zipped" }, /16e6.txt.gz: incorrect header check/],
    ["nothing", {}, /^clip-\w+ has no tokenizer: neither tokenizer.json nor merges.txt/],
    ["a line of one token", { "merges.txt": "#version\na\n" }, /merges.txt: merge 0 is "a", not two tokens/],
    ["a vocabulary of GPT-2", { "merges.txt": "a b", "vocab.json": '{"a":0}' }, /vocab.json: no token ends a word/],
    ["a damaged vocabulary", { "merges.txt": "a b", "vocab.json": "{" }, /vocab.json is not JSON/],
    ["a merge that is no token", { "merges.txt": "qq b" }, /merges.txt: merge 0 \(qq \+ b\)/],
    [
      "no padding token",
      { "merges.txt": "a b", "tokenizer_config.json": '{"pad_token":"x y"}' },
      /token x y is not in/,
    ],
  ])("what is wrong is named: %s", async (_, files, message) => {
    await expect(openTokenizer(folder(files))).rejects.toThrow(message);
  });

  const rows = texts.map((text) => ({ text, ids: [trained.startId, ...trained.encode(text), trained.endId] }));
  const wrong = (changed: typeof rows): boolean[] => [...withoutVocabulary(changed)].map(({ ok }) => ok);
  test("without a vocabulary: right ids fit, wrong ones do not", () => {
    expect(wrong(rows)).toEqual([true, true, true]);
    const plant = (row: number, edit: (ids: number[]) => number[]): boolean[] =>
      wrong(rows.map((r, i) => (i === row ? { ...r, ids: edit([...r.ids]) } : r)));
    const [cute] = trained.encode("cute");
    expect(plant(1, (ids) => ids.map((id) => (id === cute ? 64 : id)))[1]).toBe(false); // a byte for a word
    expect(plant(2, (ids) => ids.toSpliced(2, 1))[2]).toBe(false); // one token fewer
    expect(plant(1, (ids) => ids.toSpliced(1, 2, ids[2], ids[1]))).toContain(false); // words exchanged
    expect(plant(2, (ids) => ids.slice(0, -1))[2]).toBe(false); // no end
  });
  test("the golden kind compares ids where the folder has a vocabulary", async () => {
    const files = { "merges.txt": lines };
    const run = async (ids: number[]): Promise<string[]> => {
      const path = folder({ ...files, "tokens.json": JSON.stringify([{ text: texts[0], transformers: ids }]) });
      const results: string[] = [];
      for await (const e of golden(path)) if (e.type === "check") results.push(e.check.message ?? "ok");
      return results;
    };
    expect(await run(rows[0].ids)).toEqual(["ok"]);
    expect(await run([...rows[0].ids, 1])).toEqual([expect.stringMatching(/^got 5\d\d,.*, expected 5\d\d,.*,1$/)]);
  });
});

describeFolder("clip-preprocess-a", (path) => {
  test("resized bytes are Pillow's", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 15, failed: [] });
  });
});
describeFolder("clip-tokenizer-a", (path) => {
  test("some vocabulary has these ids for our words and bytes", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 20, failed: [] });
  });
});
