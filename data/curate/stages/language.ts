// The three stages that ask a language model: describe (what is seen and what happens), summarise (one clean caption from the
// static and the dynamic side, as the paper asked of its model), translate (the other language). Each answer goes into a row
// with the model that gave it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import * as z from "zod";
import { decodeSticker } from "../../decode/index.ts";
import { pickFrames, prepareFrame } from "../../frames.ts";
import { BudgetSpent, ChatClient, estimate, type Question, Refused, TooManyImages } from "../chat.ts";
import type { Collection } from "../collection.ts";
import { optional } from "../derived.ts";
import { type Item, NONE, NotNow, queried, type Stage } from "../stage.ts";
import { table } from "../tables.ts";

interface Answered {
  readonly text: string | null;
  readonly model: string;
  readonly error: string | null;
}

/** A stage whose rows are answers of a model; `about` words the question. */
interface Asking<I extends Item> {
  readonly name: string;
  readonly about: string;
  readonly version: number;
  readonly prompt: string;
  readonly vision: boolean;
  /** SELECT of the items: "key" and what the question is made of. */
  query(collection: Collection): string;
  ask(item: I, o: { collection: Collection; client: ChatClient; model: string; prompt: string }): Promise<string>;
}

/** Where answers are remembered. */
const answers = ({ dir }: Collection): string => join(dir, "cache", "chat");

function asking<I extends Item>({ name, about, version, prompt, vision, query, ask }: Asking<I>): Stage<I, Answered> {
  const modelOf = ({ config }: Collection): string =>
    vision ? config.annotate.visionModel : config.annotate.textModel;
  return {
    name,
    about,
    version,
    columns: { text: "VARCHAR", model: "VARCHAR", error: "VARCHAR" },
    settings: ({ annotate: { visionModel, textModel, frames } }) => ({
      prompt,
      model: vision ? [visionModel, frames] : textModel,
    }),
    parallel: ({ annotate }) => annotate.concurrency,
    folders: async (collection) => [answers(collection)],
    cost: (item, { annotate }) =>
      estimate(prompt.length + JSON.stringify(item).length, vision ? annotate.frames : 0, annotate),
    items: async (collection, db) => (collection.config.annotate.server ? queried(db, query(collection)) : NONE),
    open: async (collection) => {
      const client = new ChatClient(collection.config.annotate, answers(collection), collection.journalDir("spent"));
      const model = modelOf(collection);
      return {
        run: async (item) => {
          try {
            return { text: await ask(item, { collection, client, model, prompt }), model, error: null };
          } catch (error) {
            if (error instanceof NotNow || error instanceof BudgetSpent || error instanceof Refused) throw error;
            return { text: null, model, error: (error as Error).message };
          }
        },
        close: () => client.close(),
      };
    },
  };
}

// ---- describe -------------------------------------------------------------------------------------------------------

interface Seen extends Item {
  readonly format: string;
}

const description = z.strictObject({
  /** Who or what is shown, how it is drawn, colours, background. */
  appearance: z.string(),
  /** What happens from the first frame to the last; for a still picture the pose. */
  action: z.string(),
});

/** Side of the pictures that a model is shown. */
const SIDE = 256;

export const describe = asking<Seen>({
  name: "describe",
  about: "ask a vision model what is seen and what happens",
  version: 1,
  vision: true,
  prompt:
    "These are the frames of one sticker in order. Describe it in plain English for somebody who cannot see it. appearance: who or what is shown, the style, the colours and the background. action: what changes from the first frame to the last; if nothing does, the pose or the expression. Mention words written on the sticker only if they matter. Do not guess at names of people.",
  query: (collection) => `SELECT c.id AS "key", min(c.format) AS format FROM ${table(collection, "collect")} c
    JOIN ${table(collection, "filter")} f ON f.id = c.id AND f.kept GROUP BY c.id`,
  ask: async ({ key, format }, { collection, client, model, prompt }) => {
    const { images: how, frames } = collection.config.annotate;
    const shots = await pictures(collection.mediaPath(key, format), frames);
    const question = { model, text: prompt, schema: description };
    const several = shots.map((png, i) => ({ label: `frame ${i + 1} of ${shots.length}`, png }));
    const onSheet = async (): Promise<z.output<typeof description>> => {
      const label = `${shots.length} frames, in rows from left to right`;
      return client.ask({ ...question, images: [{ label, png: await sheet(shots) }] });
    };
    const { appearance, action } =
      how === "sheet" || shots.length === 1
        ? await onSheet()
        : await client.ask({ ...question, images: several }).catch(fallback(how, onSheet));
    return sentences(appearance, action);
  },
});

/** On a server that takes one picture, all frames are put into one. */
function fallback<T>(how: string, onSheet: () => Promise<T>): (error: Error) => Promise<T> {
  return (error) => {
    if (how === "auto" && error instanceof TooManyImages) return onSheet();
    throw error;
  };
}

async function pictures(path: string, count: number): Promise<Buffer[]> {
  const { frames, width, height, frameCount } = await decodeSticker(await readFile(path), path, (n) =>
    pickFrames(n, Math.min(n, count)),
  );
  const raw = { width: SIDE, height: SIDE, channels: 3 as const };
  const shots = frameCount === 1 ? frames.slice(0, 1) : frames;
  return Promise.all(
    shots.map((rgba) =>
      sharp(prepareFrame(rgba, width, height, SIDE), { raw })
        .png()
        .toBuffer(),
    ),
  );
}

async function sheet(shots: readonly Buffer[]): Promise<Buffer> {
  const across = Math.ceil(Math.sqrt(shots.length));
  const size = { width: across * SIDE, height: Math.ceil(shots.length / across) * SIDE };
  return sharp({ create: { ...size, channels: 3, background: "white" } })
    .composite(shots.map((input, i) => ({ input, left: (i % across) * SIDE, top: Math.floor(i / across) * SIDE })))
    .png()
    .toBuffer();
}

function sentences(...parts: readonly string[]): string {
  return parts
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map((part) => (/[.!?。]$/.test(part) ? part : `${part}.`))
    .join(" ");
}

// ---- summarise ------------------------------------------------------------------------------------------------------

interface Described extends Item {
  readonly description: string | null;
  readonly caption: string | null;
  readonly ocr: string | null;
  readonly words: readonly string[];
}

const summary = z.strictObject({ summary: z.string().min(1) });

export const summarise = asking<Described>({
  name: "summarise",
  about: "ask a language model for one clean caption from all that is known",
  version: 1,
  vision: false,
  prompt:
    "Below is what is known about an animated sticker. Summarise it in one English sentence from the static side (who or what is shown and how it looks) and from the dynamic side (what it does). Leave out anything about the video, the camera or the file, repetitions, and whatever is contradictory. Words written on the sticker may be quoted.",
  query: (
    collection,
  ) => `SELECT c.id AS "key", any_value(d.text) AS description, arg_min(c.caption, c."key") AS caption,
      any_value(o.text) AS ocr, list_slice(list_sort(list_distinct(flatten(list(c.words)))), 1, 20) AS words
    FROM ${table(collection, "collect")} c JOIN ${table(collection, "filter")} f ON f.id = c.id AND f.kept
    LEFT JOIN ${optional(collection, "describe", "NULL::VARCHAR AS text")} d ON d."key" = c.id
    LEFT JOIN ${optional(collection, "ocr", "NULL::VARCHAR AS text")} o ON o."key" = c.id
    GROUP BY c.id HAVING coalesce(any_value(d.text), arg_min(c.caption, c."key")) IS NOT NULL`,
  ask: async ({ description: seen, caption, ocr, words }, { client, model, prompt }) => {
    const known = [
      seen && `Description: ${seen}`,
      caption && `Caption: ${caption}`,
      ocr && `Written on it: ${ocr}`,
      words.length > 0 && `People find it by: ${words.join(", ")}`,
    ].filter((line): line is string => Boolean(line));
    return (await client.ask({ model, text: `${prompt}\n\n${known.join("\n")}`, schema: summary })).summary.trim();
  },
});

// ---- translate ------------------------------------------------------------------------------------------------------

interface Captioned extends Item {
  readonly caption: string;
}

const translation = z.strictObject({ chinese: z.string().min(1) });

export const translate = asking<Captioned>({
  name: "translate",
  about: "ask a language model for the caption in Chinese",
  version: 1,
  vision: false,
  prompt:
    "Translate this description of a sticker into simplified Chinese, as a native speaker would write it. Keep words in quotation marks as they are.",
  query: (collection) => `SELECT s."key", s.text AS caption FROM ${table(collection, "summarise")} s
    JOIN ${table(collection, "filter")} f ON f.id = s."key" AND f.kept WHERE s.text IS NOT NULL`,
  ask: async ({ caption }, { client, model, prompt }) =>
    (
      await client.ask({ model, text: `${prompt}\n\n${caption}`, schema: translation } satisfies Question<unknown>)
    ).chinese.trim(),
});
