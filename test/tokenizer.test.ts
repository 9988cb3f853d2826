// The BPE trainer and the tokenizer.json reader: laws of encode and decode, agreement with @huggingface/tokenizers on
// our own and on foreign files, and CLIP's ids where its vocabulary is not needed to know them.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as Oracle } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BYTE_CHARACTERS } from "../data/byte_alphabet.ts";
import { loadTokenizer, parseTokenizer, saveTokenizer, Tokenizer } from "../data/tokenizer.ts";
import { clipFile } from "../data/tokenizer_format.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";

const SUBJECTS = ["a red heart", "a cute cat", "a panda's paw", "an old clock", "一只可爱的猫", "红色的心", "熊猫"];
const ACTIONS = ["beating", "spinning around", "waving", "bouncing up and down", "在跳动", "旋转", "说加油"];
const CAPTIONS = SUBJECTS.flatMap((s) => ACTIONS.map((a, i) => `${i % 2 ? "Real" : "Cartoon"} \t ${s} ${a}`));
/** Runs of one letter: here which of several equal pairs is merged first shows. */
const SLEEPY = ["zz", "zzz", "zzzz", "zzzzz", "zzzzzzz"].map((z) => `Cartoon \t a cat sleeping ${z}`);
const tokenizer = trainTokenizer([...CAPTIONS, ...SLEEPY], { vocabSize: 700 });

/** Texts with what captions are likely and unlikely to contain. */
const TEXTS = [
  ...CAPTIONS,
  ...SLEEPY,
  "",
  "   ",
  "Hello, WORLD! it's 3.14 o'clock, they'll say I'm done...",
  "加油！“好的”，在 2024 年。",
  "emoji 😀🐼 and ﬁ ligature, Å å A\u030A, İstanbul, straße",
  "tabs\tand\nnew\u3000lines\u0085\uFEFF end",
  "<|endoftext|> in the middle <|startoftext|> x",
  "</w> <|ENDOFTEXT|> \\ / $& ''s",
];

const json = (t: Tokenizer) => JSON.parse(JSON.stringify(t.file));
const oracleOf = (file: object) => new Oracle(file, { clean_up_tokenization_spaces: false });
const withMarks = (t: Tokenizer, text: string) => [t.startId, ...t.encode(text), t.endId];

describe("training", () => {
  it("merges the most frequent pair first and breaks ties by the smaller left, then right id", () => {
    // Words "ab" x 3, "cb" x 3, "de" x 2. Pairs end a word: (a, b</w>) and (c, b</w>) tie at 3 and "a" has the smaller id.
    const { merges } = trainTokenizer(["ab cb de ab", "cb ab de cb"], { vocabSize: 600 }).file.model;
    expect(merges).toEqual([
      ["a", "b</w>"],
      ["c", "b</w>"],
      ["d", "e</w>"],
    ]);
  });

  it("counts again after every merge, as a naive trainer does", () => {
    const captions = CAPTIONS.map((caption) => caption.replaceAll("a", "aa"));
    const fast = trainTokenizer(captions, { vocabSize: 640 }).file.model.merges;
    expect(fast).toEqual(naiveMerges(captions, fast.length));
    expect(fast.length).toBeGreaterThan(100);
  });

  it("does not depend on the order of the captions", () => {
    const reversed = trainTokenizer([...CAPTIONS, ...SLEEPY].reverse(), { vocabSize: 700 });
    expect(JSON.stringify(reversed.file)).toBe(JSON.stringify(tokenizer.file));
  });

  it("lays the vocabulary out as CLIP does", () => {
    const { vocab, merges } = tokenizer.file.model;
    expect([vocab["!"], vocab.a, vocab["a</w>"]]).toEqual([0, 64, 320]);
    expect(vocab["<|startoftext|>"]).toBe(512 + new Set(merges.map((m) => (m as string[]).join(""))).size);
    expect([tokenizer.startId, tokenizer.endId, tokenizer.vocabSize]).toEqual([
      tokenizer.vocabSize - 2,
      tokenizer.vocabSize - 1,
      Object.keys(vocab).length,
    ]);
    expect(Object.values(vocab).sort((a, b) => a - b)).toEqual(Object.keys(vocab).map((_, i) => i));
  });

  it("refuses a vocabulary without room for the bytes", () => {
    expect(() => trainTokenizer(CAPTIONS, { vocabSize: 500 })).toThrow(/from 514 on, got 500/);
  });
});

/** Recounts all pairs before each merge; words are weighted by how often they occur. */
function naiveMerges(captions: readonly string[], count: number): string[][] {
  const untrained = trainTokenizer([], { vocabSize: 514 });
  const ids = new Map(Object.entries(untrained.file.model.vocab));
  const words = captions.flatMap((caption) => {
    const out: string[][] = [[]];
    for (const id of untrained.encode(caption)) {
      const token = [...ids].find(([, i]) => i === id)![0];
      out.at(-1)!.push(token);
      if (token.endsWith("</w>")) out.push([]);
    }
    return out.slice(0, -1);
  });
  const merges: string[][] = [];
  while (merges.length < count) {
    const counts = new Map<string, { pair: string[]; n: number }>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = `${word[i]} ${word[i + 1]}`;
        const entry = counts.get(key) ?? { pair: [word[i], word[i + 1]], n: 0 };
        entry.n++;
        counts.set(key, entry);
      }
    }
    const order = [...counts.values()].sort(
      (a, b) => b.n - a.n || ids.get(a.pair[0])! - ids.get(b.pair[0])! || ids.get(a.pair[1])! - ids.get(b.pair[1])!,
    );
    const [left, right] = order[0].pair;
    merges.push([left, right]);
    if (!ids.has(left + right)) ids.set(left + right, ids.size);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++)
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
    }
  }
  return merges;
}

describe("encoding", () => {
  it("equals @huggingface/tokenizers on the trained file", () => {
    const oracle = oracleOf(json(tokenizer));
    for (const text of TEXTS) expect(withMarks(tokenizer, text), text).toEqual(oracle.encode(text).ids);
  });

  it("equals it on any text", () => {
    const oracle = oracleOf(json(tokenizer));
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 30 }), (text) => {
        expect(withMarks(tokenizer, text)).toEqual(oracle.encode(text).ids);
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  it("notices a wrong merge order", () => {
    const file = json(tokenizer);
    file.model.merges.reverse();
    const wrong = new Tokenizer(file);
    expect(
      TEXTS.filter((text) => String(wrong.encode(text)) !== String(tokenizer.encode(text))).length,
    ).toBeGreaterThan(3);
  });

  it("shortens captions it was trained on and gives CLIP's own ids to single bytes", () => {
    expect(tokenizer.encode("a cute cat waving")).toHaveLength(4);
    // From OpenAI's tokenizer: no merge of its vocabulary applies to single digits and marks.
    expect(tokenizer.encode("1234567890 3.14 10,000")).toEqual([
      272, 273, 274, 275, 276, 277, 278, 279, 280, 271, 274, 269, 272, 275, 272, 271, 267, 271, 271, 271,
    ]);
  });

  it("pads with id 0 and cuts before the end token", () => {
    const short = tokenizer.encodePadded("a cat", 8);
    expect([...short]).toEqual([...withMarks(tokenizer, "a cat"), 0, 0, 0, 0, 0, 0, 0, 0].slice(0, 8));
    expect(tokenizer.fits("a cat", 8)).toBe(true);
    const long = "zq ".repeat(50);
    expect(tokenizer.fits(long)).toBe(false);
    expect([...tokenizer.encodePadded(long)]).toEqual([...withMarks(tokenizer, long).slice(0, 76), tokenizer.endId]);
    expect(() => tokenizer.encodePadded("x", 1)).toThrow(/at least 2/);
  });
});

describe("decoding", () => {
  it("gives English and Chinese captions back exactly, lower-cased and with single spaces", () => {
    for (const caption of CAPTIONS.filter((c) => !c.includes("'"))) {
      expect(tokenizer.decode(tokenizer.encodePadded(caption))).toBe(caption.toLowerCase().replace(/\s+/g, " "));
    }
  });

  it("is stable: what was decoded encodes to the same ids", () => {
    for (const text of TEXTS.filter((t) => !t.includes("<"))) {
      expect(tokenizer.encode(tokenizer.decode(tokenizer.encode(text))), text).toEqual(tokenizer.encode(text));
    }
  });

  it("names an id that does not exist", () => {
    expect(() => tokenizer.decode([99_999])).toThrow(/token id 99999 .* vocabulary of \d+/);
  });
});

/** GPT-2 style: spaces belong to the words, no end-of-word mark, merges as strings. */
function gpt2Style(): object {
  const merges = ["Ġ c", "a t", "Ġc at", "h e", "è ¿", "l l", "ll o"];
  const tokens = [...BYTE_CHARACTERS, ...merges.map((merge) => merge.replace(" ", "")), "<|endoftext|>"];
  return {
    added_tokens: [{ id: tokens.length - 1, content: "<|endoftext|>", special: true, normalized: false }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
    post_processor: { type: "ByteLevel", trim_offsets: false },
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

describe("tokenizer.json", () => {
  it("survives saving and loading", async () => {
    const dir = await mkdtemp(join(tmpdir(), "tokenizer-"));
    await saveTokenizer(tokenizer, join(dir, "tokenizer.json"));
    const loaded = await loadTokenizer(join(dir, "tokenizer.json"));
    for (const text of TEXTS) expect(loaded.encode(text)).toEqual(tokenizer.encode(text));
    const first = await readFile(join(dir, "tokenizer.json"));
    await saveTokenizer(loaded, join(dir, "tokenizer.json"));
    expect(first.equals(await readFile(join(dir, "tokenizer.json")))).toBe(true);
    await rm(dir, { recursive: true });
  });

  it("reads a GPT-2 style file without end-of-word marks and keeps its spaces", () => {
    const gpt2 = parseTokenizer(JSON.stringify(gpt2Style()), "gpt2");
    const oracle = oracleOf(gpt2Style());
    for (const text of TEXTS) {
      expect(gpt2.encode(text), text).toEqual(oracle.encode(text).ids);
      if (!text.includes("<|")) expect(gpt2.decode(gpt2.encode(text))).toBe(text);
    }
    expect(gpt2.startId).toBe(gpt2.endId);
  });

  it("reads CLIP's published layout: merges as strings, GPT-2 words inside the split, normalised marks", () => {
    const file = json(tokenizer);
    file.model.merges = file.model.merges.map((merge: string[]) => merge.join(" "));
    file.pre_tokenizer.pretokenizers[1].use_regex = true;
    for (const token of file.added_tokens) token.normalized = true;
    const clip = new Tokenizer(file);
    const oracle = oracleOf(JSON.parse(JSON.stringify(file)));
    for (const text of TEXTS) expect(withMarks(clip, text), text).toEqual(oracle.encode(text).ids);
  });

  it("takes marks from a TemplateProcessing step and unknown bytes to the unknown token", () => {
    const file = json(tokenizer);
    const mark = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const single = [mark("<|endoftext|>"), { Sequence: { id: "A", type_id: 0 } }, mark("<|startoftext|>")];
    file.post_processor = { type: "TemplateProcessing", single, pair: single, special_tokens: {} };
    delete file.model.vocab["x</w>"];
    const swapped = new Tokenizer(file);
    expect([swapped.startId, swapped.endId]).toEqual([tokenizer.endId, tokenizer.startId]);
    expect(withMarks(swapped, "x y")).toEqual(oracleOf(JSON.parse(JSON.stringify(file))).encode("x y").ids);
  });

  it("says what it cannot read", () => {
    const change = (edit: (file: ReturnType<typeof json>) => void) => () => {
      const file = json(tokenizer);
      edit(file);
      return parseTokenizer(JSON.stringify(file), "t.json");
    };
    expect(() => parseTokenizer("{", "t.json")).toThrow(/t\.json is not JSON/);
    expect(
      change((f) => {
        f.model.type = "Unigram";
      }),
    ).toThrow(/t\.json: the model is Unigram; only byte-level BPE/);
    expect(
      change((f) => {
        delete f.model.merges;
      }),
    ).toThrow(/model\.merges/);
    expect(
      change((f) => {
        f.model.byte_fallback = true;
      }),
    ).toThrow(/byte_fallback/);
    expect(
      change((f) => {
        f.normalizer = { type: "BertNormalizer" };
      }),
    ).toThrow(/normalizer "BertNormalizer" is not supported/);
    expect(
      change((f) => {
        f.pre_tokenizer = { type: "Metaspace" };
      }),
    ).toThrow(/only byte-level BPE/);
    expect(
      change((f) => {
        f.model.merges.push(["a", "qqqq"]);
      }),
    ).toThrow(/merge \d+ \(a \+ qqqq\)/);
    expect(
      change((f) => {
        f.pre_tokenizer.pretokenizers[0].pattern = { Regex: "(?i:x" };
      }),
    ).toThrow(/pattern \(\?i:x/);
    expect(() =>
      parseTokenizer(JSON.stringify({ ...clipFile({ a: 0 }, []), post_processor: null, added_tokens: [] }), "t.json"),
    ).toThrow(/no <\|endoftext\|> token/);
  });
});
