// The configuration of a data set: where stickers come from and what is asked of them. A JSON file; unknown keys are refused
// by name. Defaults are the paper's where it gives a value and spec 5's proposals where it does not. Relative paths count from
// the configuration's own folder.

import { isAbsolute, join } from "node:path";
import * as z from "zod";
import { DOMAINS } from "../record.ts";

const provenance = {
  /** Names the source in tables and on the data card. */
  name: z.string().min(1),
  /** SPDX id or a link; empty when unknown, and then the card says so. */
  license: z.string().default(""),
  attribution: z.string().default(""),
};

/** Which field of a row is what: a column's name, or its number from 0. */
const column = z.union([z.string().min(1), z.int().nonnegative()]);
const columns = z.strictObject({
  /** One of these three leads to the image. */
  file: column.optional(),
  url: column.optional(),
  bytes: column.optional(),
  caption: column.optional(),
  caption_zh: column.optional(),
  domain: column.optional(),
  /** The words on the picture. */
  text: column.optional(),
  subject: column.optional(),
  action: column.optional(),
  /** Trigger words: a list, or a text split at commas. */
  words: column.optional(),
  license: column.optional(),
  attribution: column.optional(),
});

const folder = z.strictObject({
  type: z.literal("folder"),
  ...provenance,
  path: z.string(),
  /** Trigger words of a file: the names of the folders it is in, or a fixed list. */
  words: z.union([z.literal("folders"), z.array(z.string())]).default("folders"),
});
const archive = z.strictObject({
  type: z.literal("archive"),
  ...provenance,
  /** A .tar, .tar.gz, .tgz or .zip, or a folder of them; a member's .json or .txt of the same name describes it (WebDataset). */
  path: z.string(),
  words: z.union([z.literal("folders"), z.array(z.string())]).default([]),
});
const table = z.strictObject({
  type: z.literal("table"),
  ...provenance,
  /** .csv, .tsv, .json (an array), .jsonl or .parquet. Paths in it count from its folder. */
  path: z.string(),
  /** Whether a .csv or .tsv names its columns in the first line; TGIF's does not. */
  header: z.boolean().default(true),
  columns,
  domain: z.enum(DOMAINS).optional(),
});
const search = z.strictObject({
  type: z.literal("search"),
  ...provenance,
  /** A text file with a crawl word on each line, or the words. */
  words: z.union([z.string(), z.array(z.string())]),
  /** Address of a query; {word} and {page} are replaced. */
  url: z.string().includes("{word}"),
  headers: z.record(z.string(), z.string()).default({}),
  pages: z.int().positive().default(1),
  firstPage: z.int().nonnegative().default(1),
  /** Where the answers' image addresses are: a path like "data[].images.original.url". */
  items: z.string().min(1),
});

const fetching = z.strictObject({
  /** Requests at a time, in all and to one host; pause between two to one host. */
  concurrency: z.int().positive().default(16),
  perHost: z.int().positive().default(2),
  delayMs: z.number().nonnegative().default(250),
  /** Tries after the first, with pauses that double. */
  retries: z.int().nonnegative().default(3),
  timeoutSeconds: z.number().positive().default(30),
  userAgent: z.string().default("gifgrad-dataset"),
  robots: z.enum(["obey", "ignore"]).default("obey"),
});

const filter = z.strictObject({
  /** (a) Long optical text: characters, or the share of the picture that its boxes cover. */
  maxTextCharacters: z.number().default(20),
  maxTextArea: z.number().default(0.3),
  /** (b) Low information entropy: bits of the grey histogram, mean over frames. */
  minEntropy: z.number().default(2),
  /** (c) Anomalous aspect ratio: longer side over shorter. */
  maxAspect: z.number().min(1).default(2),
  /** Differing bits of 256 up to which two stickers are near duplicates; of those the first in id order is kept. -1: off. */
  nearDuplicateBits: z.int().min(-1).max(32).default(12),
});

const split = z.strictObject({
  /** Trigger words per domain that get a test sticker. */
  words: z.int().positive().default(500),
  /** Stickers for training differ from every test sticker in more than this many of the 256 bits of their hashes. */
  apartBits: z.int().min(-1).max(64).default(20),
  /** Share of (subject, action) pairs held out, where records name them. */
  heldOutPairs: z.number().min(0).max(1).default(0.1),
  seed: z.int().nonnegative().default(1),
});

const annotate = z.strictObject({
  /** Address of a server that speaks the OpenAI chat dialect, e.g. http://localhost:11434/v1; absent: no language model. */
  server: z.url().optional(),
  /** Environment variable that holds the server's key. */
  keyFrom: z.string().default("OPENAI_API_KEY"),
  visionModel: z.string().default("qwen2.5vl"),
  textModel: z.string().default("qwen2.5"),
  /** Frames shown to the model; "sheet" puts them into one picture, for servers that take a single one. */
  frames: z.int().positive().default(8),
  images: z.enum(["auto", "several", "sheet"]).default("auto"),
  concurrency: z.int().positive().default(4),
  timeoutSeconds: z.number().positive().default(120),
  retries: z.int().nonnegative().default(3),
  /** Stops, with what is done kept, when this much has been spent; prices are per million tokens. */
  budget: z.number().positive().optional(),
  pricePerMillion: z.strictObject({ input: z.number(), output: z.number() }).default({ input: 0, output: 0 }),
  /** Run folder of the domain classifier, by `gifgrad dataset train-domain`; absent: the domain comes from the sources. */
  domainModel: z.string().optional(),
  /** "auto": where its optional packages are installed. */
  ocr: z.union([z.boolean(), z.literal("auto")]).default("auto"),
  /** A .csv or .jsonl of human corrections, which win over everything. */
  edits: z.string().optional(),
});

const config = z.strictObject({
  name: z.string().min(1).default("stickers"),
  sources: z.array(z.discriminatedUnion("type", [folder, archive, table, search])).default([]),
  fetch: fetching.prefault({}),
  filter: filter.prefault({}),
  annotate: annotate.prefault({}),
  split: split.prefault({}),
  /** Processes that decode; 0: one for each core. */
  processes: z.int().nonnegative().default(0),
});

export type CurateConfig = z.output<typeof config>;
export type SourceConfig = CurateConfig["sources"][number];
export type SourceOf<T extends SourceConfig["type"]> = Extract<SourceConfig, { type: T }>;
export type FetchConfig = CurateConfig["fetch"];

/** Parses a configuration; `where` names it in errors and `base` is the folder its paths count from. */
export function parseConfig(value: unknown, where: string, base: string): CurateConfig {
  const parsed = config.safeParse(value);
  if (!parsed.success) {
    const faults = parsed.error.issues.map(({ path, message }) => `${path.join(".") || "the file"}: ${message}`);
    throw new Error(`${where}: ${faults.join("; ")}`);
  }
  const { sources } = parsed.data;
  const twice = sources.map((source) => source.name).find((name, i, all) => all.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`${where}: two sources are called "${twice}"; give each a name of its own`);
  const { edits, domainModel } = parsed.data.annotate;
  const annotate = {
    ...parsed.data.annotate,
    ...(edits === undefined ? {} : { edits: absolute(edits, base) }),
    ...(domainModel === undefined ? {} : { domainModel: absolute(domainModel, base) }),
  };
  return { ...parsed.data, annotate, sources: sources.map((source) => located(source, base)) };
}

function absolute(path: string, base: string): string {
  return isAbsolute(path) ? path : join(base, path);
}

function located(source: SourceConfig, base: string): SourceConfig {
  if (source.type === "search") {
    return { ...source, words: typeof source.words === "string" ? absolute(source.words, base) : source.words };
  }
  return { ...source, path: absolute(source.path, base) };
}

/** JSON Schema of the configuration, for editors. */
export function configSchema(): object {
  return z.toJSONSchema(config, { io: "input" });
}
