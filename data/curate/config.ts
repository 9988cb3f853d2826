// The configuration of a data set: where stickers come from and what is asked of them. A JSON file; unknown keys are refused
// by name (../json_config.ts words what is wrong). Defaults are the paper's where it gives a value and spec 5's proposals where
// it does not. Relative paths count from the configuration's own folder. Every key is described here, for people and editors.

import { isAbsolute, join } from "node:path";
import * as z from "zod";
import { checked, section } from "../json_config.ts";
import { DOMAINS } from "../record.ts";

const whole = z.int();
const provenance = {
  name: z.string().min(1).describe("Names the source in tables and on the data card; no two are the same."),
  license: z
    .string()
    .default("")
    .describe("Licence of its stickers: SPDX id or link. Empty when unknown, and then the card says so."),
  attribution: z.string().default("").describe("Whom the data card names for its stickers."),
};

const words = z.union([z.literal("folders"), z.array(z.string())]);
const WORDS = "Trigger words of a file: the names of the folders it is in, or a fixed list.";

const column = (about: string) =>
  z
    .union([z.string().min(1), whole.nonnegative()])
    .optional()
    .describe(`${about} A column's name, or its number from 0.`);
const columns = section({
  file: column("Path of the image, from the table's folder; one of file, url and bytes must be named."),
  url: column("Address of the image."),
  bytes: column("The image itself: a blob, or Hugging Face's {bytes, path}."),
  caption: column("English description."),
  caption_zh: column("Chinese description."),
  domain: column(`${DOMAINS.join(" or ")}.`),
  text: column("The words on the picture."),
  subject: column("Who does something."),
  action: column("What is done."),
  words: column("Trigger words: a list, or a text split at commas."),
  license: column("Licence of the row, before that of the source."),
  attribution: column("Attribution of the row, before that of the source."),
}).describe("Which column is what.");

const folder = section({
  type: z.literal("folder"),
  ...provenance,
  path: z
    .string()
    .describe("A folder of stickers with its subfolders; a metadata.jsonl in any of these describes what is below."),
  words: words.default("folders").describe(WORDS),
});
const archive = section({
  type: z.literal("archive"),
  ...provenance,
  path: z
    .string()
    .describe(
      "A .tar, .tar.gz, .tgz or .zip, or a folder of them; a member's .json or .txt describes it (WebDataset).",
    ),
  words: words.default([]).describe(WORDS),
});
const table = section({
  type: z.literal("table"),
  ...provenance,
  path: z.string().describe("A .csv, .tsv, .json (an array), .jsonl or .parquet. Paths in it count from its folder."),
  header: z
    .boolean()
    .default(true)
    .describe("Whether a .csv or .tsv names its columns in the first line; TGIF's does not."),
  columns,
  domain: z.enum(DOMAINS).optional().describe("Of all its stickers, where no column says it."),
});
const search = section({
  type: z.literal("search"),
  ...provenance,
  words: z
    .union([z.string(), z.array(z.string())])
    .describe("Crawl words: a list, or a text file with one on each line."),
  url: z.string().includes("{word}").describe("Address of a query; {word} and {page} are replaced."),
  headers: z.record(z.string(), z.string()).default({}).describe("Headers of every query, e.g. a key."),
  pages: whole.positive().default(1).describe("Pages asked for, for each word."),
  firstPage: whole.nonnegative().default(1).describe("The number of the first page."),
  items: z
    .string()
    .min(1)
    .describe('Where the answers\' image addresses are: a path like "data[].images.original.url".'),
});
const SOURCES = [folder, archive, table, search] as const;
const source = z.discriminatedUnion("type", SOURCES, {
  error: () => `must be one of ${SOURCES.map(({ shape }) => `"${shape.type.value}"`).join(", ")}`,
});

const fetching = section({
  concurrency: whole.positive().default(16).describe("Requests at a time, to all hosts together."),
  perHost: whole.positive().default(2).describe("Requests at a time to one host."),
  delayMs: z.number().nonnegative().default(250).describe("Pause between two requests to one host, in milliseconds."),
  retries: whole.nonnegative().default(3).describe("Tries after the first, with pauses that double."),
  timeoutSeconds: z.number().positive().default(30).describe("A request that takes longer is given up."),
  userAgent: z.string().default("gifgrad-dataset").describe("How requests name themselves, also to robots.txt."),
  robots: z.enum(["obey", "ignore"]).default("obey").describe("What becomes of addresses that robots.txt forbids."),
});

const filter = section({
  maxTextCharacters: z
    .number()
    .default(20)
    .describe("(a) Long optical text: a sticker with more characters written on it is rejected."),
  maxTextArea: z
    .number()
    .default(0.3)
    .describe("(a) Long optical text: a sticker of which words cover a larger share is rejected."),
  minEntropy: z
    .number()
    .default(2)
    .describe("(b) Low information entropy: bits of the grey histogram, mean over frames."),
  maxAspect: z.number().min(1).default(2).describe("(c) Anomalous aspect ratio: longer side over shorter."),
  nearDuplicateBits: whole
    .min(-1)
    .max(32)
    .default(12)
    .describe("Differing bits of 256 up to which two are near duplicates; the first in id order is kept. -1: off."),
});

const split = section({
  words: whole
    .positive()
    .optional()
    .describe("Trigger words per domain that get a test sticker. Absent: 500, but at most a tenth of its stickers."),
  apartBits: whole
    .min(-1)
    .max(64)
    .default(20)
    .describe("Stickers for training differ from every test sticker in more than this many of 256 bits. -1: off."),
  heldOutPairs: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe("Share of (subject, action) pairs held out of training, where records name them."),
  seed: whole.nonnegative().default(1).describe("The same seed and records give the same split."),
});

const annotate = section({
  server: z
    .url()
    .optional()
    .describe(
      "Address of an OpenAI-compatible chat server, e.g. http://localhost:11434/v1. Absent: no language model.",
    ),
  keyFrom: z.string().default("OPENAI_API_KEY").describe("Environment variable that holds the server's key."),
  visionModel: z.string().default("qwen2.5vl").describe("Model that is shown frames."),
  textModel: z.string().default("qwen2.5").describe("Model that summarises and translates."),
  frames: whole.positive().default(8).describe("Frames shown to the model."),
  images: z
    .enum(["auto", "several", "sheet"])
    .default("auto")
    .describe('"sheet" puts the frames into one picture, for servers that take a single one; "auto" where it must.'),
  concurrency: whole.positive().default(4).describe("Questions at a time."),
  timeoutSeconds: z.number().positive().default(120).describe("A question that takes longer is asked again."),
  retries: whole.nonnegative().default(3).describe("Tries after the first, with pauses that double."),
  budget: z
    .number()
    .positive()
    .optional()
    .describe(
      "Asking stops, with what is done kept, when this much was spent on the data set, all runs together, by pricePerMillion.",
    ),
  pricePerMillion: section({
    input: z.number().describe("Of a million tokens asked."),
    output: z.number().describe("Of a million tokens answered."),
  })
    .default({ input: 0, output: 0 })
    .describe("Prices of tokens, in any currency."),
  domainModel: z
    .string()
    .optional()
    .describe('Run folder of "gifgrad dataset train-domain". Absent: domains come from the sources.'),
  ocr: z
    .union([z.boolean(), z.literal("auto")])
    .default("auto")
    .describe('Whether words are read; "auto": where the optional packages for it are installed.'),
  edits: z
    .string()
    .optional()
    .describe("A .csv or .jsonl of people's corrections by sticker id, which win over everything."),
});

const config = section({
  $schema: z.string().optional().describe('For editors: where "gifgrad dataset schema" was written to.'),
  name: z.string().min(1).default("stickers").describe("Of the data set, on its card and pages."),
  sources: z.array(source).default([]).describe("Where stickers come from."),
  fetch: fetching.prefault({}).describe("Manners and patience with other people's servers."),
  filter: filter.prefault({}).describe("What is rejected, and by which limits."),
  annotate: annotate.prefault({}).describe("Who says what is on a sticker."),
  split: split.prefault({}).describe("Test sets, and what is held out of training."),
  processes: whole.nonnegative().default(0).describe("Processes that decode; 0: one for each core."),
});

export type CurateConfig = Omit<z.output<typeof config>, "$schema">;
export type SourceConfig = CurateConfig["sources"][number];
export type SourceOf<T extends SourceConfig["type"]> = Extract<SourceConfig, { type: T }>;
export type FetchConfig = CurateConfig["fetch"];

/**
 * Parses a configuration; `where` names it in errors and `base` is the folder its paths count from.
 * @throws Error in one line with every key that is wrong and what it may be
 */
export function parseConfig(value: unknown, where: string, base: string): CurateConfig {
  const { $schema: _, ...given } = checked(config, value, where);
  const { sources } = given;
  const twice = sources.map((source) => source.name).find((name, i, all) => all.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`${where}: two sources are called "${twice}"; give each a name of its own`);
  const { edits, domainModel } = given.annotate;
  const annotate = {
    ...given.annotate,
    ...(edits === undefined ? {} : { edits: absolute(edits, base) }),
    ...(domainModel === undefined ? {} : { domainModel: absolute(domainModel, base) }),
  };
  return { ...given, annotate, sources: sources.map((source) => located(source, base)) };
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
