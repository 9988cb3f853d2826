// The starter set: the same options give the same bytes, every sticker shows its subject in every frame and moves, and
// captions, text and licences say what is true. Also the record schema it is written in.

import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { decodeSticker } from "../data/decode/index.ts";
import { parseRecord } from "../data/record.ts";
import { ACTION_IDS, ACTIONS } from "../data/starter/actions.ts";
import { FONT_FAMILY, fontFile } from "../data/starter/assets.ts";
import { SOLID_ACTIONS } from "../data/starter/cast.ts";
import {
  captionsOf,
  type PlanOptions,
  planStarter,
  type Recipe,
  stickerFrames,
  writeStarter,
} from "../data/starter/index.ts";
import { PHRASES } from "../data/starter/phrases.ts";
import { rasterise } from "../data/starter/raster.ts";
import { SOLIDS } from "../data/starter/solids.ts";
import { bareNoun, SUBJECTS } from "../data/starter/subjects.ts";
import { recordOf } from "../data/starter/write.ts";

const SIZE = 32;
const scratch: string[] = [];

async function scratchFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), "gifgrad-starter-"));
  scratch.push(folder);
  return folder;
}

afterAll(() => Promise.all(scratch.map((folder) => rm(folder, { recursive: true }))));

const [plainRecipe] = planStarter({ count: 1, seed: 5, size: SIZE, plain: true, domains: ["Cartoon"] });

/** A plain recipe but for `changes`. */
function recipe(changes: Partial<Recipe> & Pick<Recipe, "subject" | "action">): Recipe {
  return { ...plainRecipe, ...changes };
}

/** Share of pixels that are not clear. */
function opaqueShare(rgba: Uint8Array): number {
  let count = 0;
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] >= 128) count++;
  return (4 * count) / rgba.length;
}

/** Share of pixels of which some channel differs by more than `by`. */
function changedShare(a: Uint8Array, b: Uint8Array, by = 8): number {
  let count = 0;
  for (let i = 0; i < a.length; i += 4) {
    if ([0, 1, 2, 3].some((c) => Math.abs(a[i + c] - b[i + c]) > by)) count++;
  }
  return (4 * count) / a.length;
}

describe("subjects", () => {
  it("are at least 200, times at least 12 actions, with unique names", () => {
    expect(SUBJECTS.length).toBeGreaterThanOrEqual(200);
    expect(ACTION_IDS.length).toBeGreaterThanOrEqual(12);
    const names = [...SUBJECTS, ...SOLIDS].map((s) => bareNoun(s.en));
    expect(new Set(names).size).toBe(names.length);
    expect(new Set(SUBJECTS.map((s) => s.zh)).size).toBe(SUBJECTS.length);
  });

  it("are noun phrases: right article in English, measure word in Chinese", () => {
    const soundsLikeAVowel = /^([aeio]|u(?!ni)|hour)/i;
    for (const { en } of [...SUBJECTS, ...SOLIDS]) {
      expect(en).toMatch(/^an? \S/);
      expect(en.startsWith("an "), en).toBe(soundsLikeAVowel.test(bareNoun(en)));
    }
    const classifiers = "个张颗位坨只头条匹棵株片朵束根串对块碗盒杯团道弯双座枚顶部台副把架排面摞支件本辆艘列组";
    for (const { zh } of [...SUBJECTS, ...SOLIDS]) expect(zh).toMatch(new RegExp(`^一[${classifiers}][^！!。]+$`));
  });

  it("have art, tags in both languages, and eyes inside the art", () => {
    const art = path.dirname(createRequire(import.meta.url).resolve("@twemoji/svg/package.json"));
    for (const { code, en, tags, tagsZh, eyes, lid } of SUBJECTS) {
      expect(existsSync(path.join(art, `${code}.svg`)), `${code} ${en}`).toBe(true);
      expect(tags.length * tagsZh.length, en).toBeGreaterThan(0);
      expect(eyes === undefined).toBe(lid === undefined);
      for (const [cx, cy, rx, ry] of eyes ?? []) {
        expect(Math.min(cx - rx, cy - ry), en).toBeGreaterThan(0);
        expect(Math.max(cx + rx, cy + ry), en).toBeLessThan(36);
      }
    }
  });
});

describe("motion", () => {
  const cast = SUBJECTS.filter((_, i) => i % 25 === 3).map((s) => bareNoun(s.en));

  it.each(ACTION_IDS)("%s shows the subject in every frame, and no frame repeats the one before", (action) => {
    for (const subject of cast) {
      const { frames } = stickerFrames(recipe({ subject, action }));
      frames.forEach((frame, k) => {
        // A flat subject (scissors, a carrot) edge-on or half way out still covers one pixel in fifty.
        expect(opaqueShare(frame), `${subject} ${action} frame ${k}`).toBeGreaterThan(0.02);
        const next = frames[(k + 1) % frames.length];
        expect(changedShare(frame, next, 2), `${subject} ${action} frames ${k}, ${k + 1}`).toBeGreaterThan(0.003);
      });
    }
  });

  it("would be reported if a pose left the stage", () => {
    const [gone] = stickerFrames(recipe({ subject: "dog", action: "pulse", shiftX: 2 })).frames;
    expect(opaqueShare(gone)).toBe(0);
  });

  it("never repeats a frame in the next, for any number of frames", () => {
    fc.assert(
      fc.property(fc.constantFrom(...ACTION_IDS), fc.integer({ min: 8, max: 24 }), (action, frames) => {
        const drawn = stickerFrames(recipe({ subject: "dog", action, frames, size: 48 })).frames;
        return drawn.every((frame, k) => Buffer.compare(frame, drawn[(k + 1) % frames]) !== 0);
      }),
      { seed: 2, numRuns: 25 },
    );
  });

  it("closes the eyes where eyes are known, and fades where they are not", () => {
    const dog = SUBJECTS.find((s) => s.en === "a dog")!;
    const [cx, cy] = dog.eyes![0];
    const { frames } = stickerFrames(recipe({ subject: "dog", action: "blink", size: 72, zoom: 1, shiftX: 0 }));
    const { fit, rest } = ACTIONS.blink;
    const at = (c: number, middle: number) => Math.round(72 * (middle + fit * (c / 36 - 0.5)));
    const red = (frame: Uint8Array) => frame[4 * (72 * at(cy - 1, 1 - rest) + at(cx, 0.5))];
    expect(red(frames[0])).toBeLessThan(90); // the eye is #292f33
    expect(red(frames[4])).toBeGreaterThan(180); // the lid is #d99e82
    expect(captionsOf(recipe({ subject: "dog", action: "blink" })).en).toBe("a dog blinking");
    expect(captionsOf(recipe({ subject: "banana", action: "blink" })).en).toBe("a banana flashing");
  });

  it.each(SOLID_ACTIONS)("of solids: %s moves in every frame on every shape", (action) => {
    for (const solid of SOLIDS.filter((_, i) => i % 8 === 4)) {
      const base = { subject: bareNoun(solid.en), domain: "Real" as const, ground: "gray" as const };
      const { frames } = stickerFrames(recipe({ ...base, action }));
      frames.forEach((frame, k) => {
        // Noise alone stays within 5 standard deviations, 11 of 255.
        const share = changedShare(frame, frames[(k + 1) % frames.length], 24);
        expect(share, `${solid.en} ${action} ${k}`).toBeGreaterThan(0.004);
      });
    }
  });
});

describe("text", () => {
  const written = (text: string) =>
    rasterise(`<text x="0" y="0.8" font-size="0.8" font-family="${FONT_FAMILY}">${text}</text>`, 24, [fontFile()]);

  it("has a glyph in the bundled font for every character of every phrase", () => {
    const missing = written("龘"); // not in the subset
    for (const char of new Set(PHRASES.flatMap(({ text }) => [...text.replaceAll(" ", "")]))) {
      const glyph = written(char);
      expect(opaqueShare(glyph), char).toBeGreaterThan(0);
      expect(Buffer.compare(glyph, missing), char).not.toBe(0);
    }
  });

  it.each([
    { text: "OK!", textLang: "en" },
    { text: "恭喜发财", textLang: "zh" },
  ] as const)("$text is drawn along the lower edge, and other words look different", (words) => {
    const strip = (r: Recipe) => stickerFrames(r).frames[0].slice(4 * 64 * 52, 4 * 64 * 62);
    const silent = recipe({ subject: "dog", action: "spin", size: 64 });
    expect(opaqueShare(strip({ ...silent, ...words }))).toBeGreaterThan(0.2);
    expect(changedShare(strip({ ...silent, ...words }), strip(silent))).toBeGreaterThan(0.2);
    expect(changedShare(strip({ ...silent, ...words }), strip({ ...silent, ...words, text: "加油" }))).toBeGreaterThan(
      0.05,
    );
  });
});

describe("plan", () => {
  const options: PlanOptions = { count: 400, seed: 1, size: 64 };

  it("words every sticker by subject, action and text, in both languages", () => {
    const all = new Map([...SUBJECTS, ...SOLIDS].map((s) => [bareNoun(s.en), s]));
    const recipes = planStarter(options);
    for (const r of recipes) {
      const { en, zh } = captionsOf(r);
      expect(en.startsWith(`${all.get(r.subject)!.en} `), en).toBe(true);
      expect(zh.startsWith(`${all.get(r.subject)!.zh}在`), zh).toBe(true);
      if (r.text) expect([en.includes(`"${r.text}"`), zh.includes(`“${r.text}”`)]).toEqual([true, true]);
    }
    const withText = recipes.filter((r) => r.text !== null);
    expect(new Set(withText.map((r) => r.textLang))).toEqual(new Set(["en", "zh"]));
    expect(new Set(recipes.map((r) => r.format))).toEqual(new Set(["gif", "webp", "apng"]));
    expect(captionsOf(recipe({ subject: "red heart", action: "pulse" })).en).toBe("a red heart beating");
  });

  it("gives different actions of a subject different captions", () => {
    for (const { en } of SUBJECTS.slice(0, 60)) {
      const captions = ACTION_IDS.map((action) => captionsOf(recipe({ subject: bareNoun(en), action })));
      expect(new Set(captions.map((c) => c.en)).size).toBe(ACTION_IDS.length);
      expect(new Set(captions.map((c) => c.zh)).size).toBe(ACTION_IDS.length);
    }
  });

  it("draws sticker i the same however many follow, and otherwise by seed", () => {
    expect(planStarter({ ...options, count: 7 })).toEqual(planStarter(options).slice(0, 7));
    expect(planStarter({ ...options, seed: 2 })).not.toEqual(planStarter(options));
  });

  it("uses every pair once before any twice, and never a held-out pair", () => {
    const held = { subject: "a red heart", action: "spin" };
    const only = { subjects: ["red heart", "dog", "1f438"], actions: ["spin", "jump", "pulse"] };
    const recipes = planStarter({ ...options, count: 16, only, exclude: [held], domains: ["Cartoon"] });
    const counts = new Map<string, number>();
    for (const { subject, action } of recipes)
      counts.set(`${subject} ${action}`, (counts.get(`${subject} ${action}`) ?? 0) + 1);
    expect([...counts.values()]).toEqual(Array(8).fill(2));
    expect(counts.has("red heart spin")).toBe(false);
    expect(counts.has("frog jump")).toBe(true);
  });

  it("keeps plain sets plain", () => {
    for (const r of planStarter({ ...options, plain: true })) {
      expect(r).toMatchObject({ text: null, outline: false, mirror: false, wording: 0, format: "gif", delayMs: 100 });
      expect(r.ground).toBe(r.domain === "Real" ? "gray" : "transparent");
    }
  });

  it("says what is wrong with options", () => {
    expect(() => planStarter({ ...options, count: 0 })).toThrow(/count must be a whole number from 1 .* got 0/);
    expect(() => planStarter({ ...options, frames: 4 })).toThrow(/frames must be a whole number from 8/);
    expect(() => planStarter({ ...options, only: { subjects: ["blue zebra"] } })).toThrow(/no subject "blue zebra"/);
    expect(() => planStarter({ ...options, only: { actions: ["explode"] } })).toThrow(/no action "explode".*bounce/);
    const nothing = { only: { subjects: ["dog"], actions: ["spin"] }, exclude: [{ subject: "dog", action: "spin" }] };
    expect(() => planStarter({ ...options, ...nothing })).toThrow(/no \(subject, action\) pair is left/);
  });
});

describe("a set on disk", () => {
  const options = { count: 24, seed: 0, size: SIZE };

  async function contents(folder: string): Promise<Map<string, Buffer>> {
    const names = (await readdir(folder, { recursive: true })).filter((name) => path.extname(name) !== "").sort();
    return new Map(
      await Promise.all(names.map(async (name) => [name, await readFile(path.join(folder, name))] as const)),
    );
  }

  it("is the same bytes for the same seed, decodes, and carries licences", async () => {
    const [a, b] = [await scratchFolder(), await scratchFolder()];
    let progress = 0;
    const records = await writeStarter(a, { ...options, onProgress: (done) => (progress = done) });
    expect(progress).toBe(options.count);
    await writeStarter(b, { ...options, count: 3, seed: 4 });
    const before = await contents(b);
    await writeStarter(b, options); // over another starter set
    const files = await contents(a);
    expect(await contents(b)).toEqual(files);
    expect(before.get("stickers/000000.gif")).not.toEqual(files.get("stickers/000000.gif"));

    const lines = files.get("metadata.jsonl")!.toString().trim().split("\n");
    expect(lines.map((line, i) => parseRecord(line, `line ${i + 1}`))).toEqual(records);
    const formats = new Set<string>();
    for (const record of records) {
      expect(record.license).toBe(record.domain === "Cartoon" ? "CC-BY-4.0" : "CC0-1.0");
      expect(record.attribution).toMatch(record.domain === "Cartoon" ? /Twemoji/ : /Gifgrad/);
      expect(record.caption_zh).toMatch(/^一/);
      expect(record.trigger_words!.length).toBeGreaterThan(5);
      const sticker = await decodeSticker(files.get(record.file_name)!, record.file_name);
      expect([sticker.frames.length, sticker.width]).toEqual([8, SIZE]);
      formats.add(sticker.format);
    }
    expect(formats).toEqual(new Set(["gif", "webp", "apng"]));
    expect(files.get("ATTRIBUTION.md")!.toString()).toMatch(/CC-BY-4\.0[\s\S]*Open Font License/);
  });

  it("does not touch a folder with anything else in it", async () => {
    const folder = await scratchFolder();
    await writeFile(path.join(folder, "thesis.txt"), "years of work");
    await expect(writeStarter(folder, options)).rejects.toThrow(/is not empty and is not a starter set/);
    expect(await readdir(folder)).toEqual(["thesis.txt"]);
  });
});

describe("parseRecord", () => {
  it("needs a file name and a caption, reads domains in any case, keeps other fields", () => {
    expect(parseRecord('{"file_name":"a/b.gif","caption":"a cat","domain":"real","mood":3}', "line 1")).toEqual({
      file_name: "a/b.gif",
      caption: "a cat",
      domain: "Real",
      mood: 3,
    });
    expect(parseRecord('{"file_name":"b.gif","caption":"a cat","domain":null}', "line 1").domain).toBeNull();
    const empty = parseRecord('{"file_name":"b.gif","caption":"a cat","domain":"","subject":""}', "line 1");
    expect([empty.domain, empty.subject]).toEqual([null, null]);
  });

  it.each([
    ["{oops", /^m\.jsonl line 4: not JSON/],
    ['{"file_name":"a.gif"}', /^m\.jsonl line 4: caption: .*expected string/],
    ['{"caption":"a cat","file_name":"../a.gif"}', /file_name: must be a path inside the folder/],
    ['{"caption":"a cat","file_name":"a.gif","domain":"Anime"}', /domain: expected "Cartoon" or "Real", got "Anime"/],
    ["[1]", /^m\.jsonl line 4: .*expected object/],
  ])("explains what is wrong with %s", (line, message) => {
    expect(() => parseRecord(line, "m.jsonl line 4")).toThrow(message);
  });

  it("reads back every record of a plan", () => {
    for (const r of planStarter({ count: 50, seed: 3 })) {
      expect(parseRecord(JSON.stringify(recordOf(r)), "line")).toEqual(recordOf(r));
    }
  });
});
