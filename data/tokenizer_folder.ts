// Tokenizers as checkpoints of CLIP carry them: tokenizer.json, or vocab.json with merges.txt, or the list of merges alone
// (OpenAI's bpe_simple_vocab_16e6.txt.gz), from which CLIP's numbering of tokens follows. Encoding is tokenizer.ts.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { z } from "zod";
import { loadTokenizer, Tokenizer, type TokenizerOptions } from "./tokenizer.ts";
import { BYTE_TOKENS, clipFile, END, END_OF_WORD, START } from "./tokenizer_format.ts";

const MERGES = ["merges.txt", "bpe_simple_vocab_16e6.txt", "bpe_simple_vocab_16e6.txt.gz"];
/** Merges that OpenAI's tokenizer takes of its longer list: 49152 - 256 - 2. */
const CLIP_MERGES = 48_894;
/** Of a list of merges, unzipped; OpenAI's has 3 MB. */
const MAX_TEXT = 1 << 26;

/**
 * The tokenizer of a folder. It pads with the token that the folder's tokenizer_config.json names, if there is one.
 * @throws Error naming the folder when it has none of the files, or the file and what is wrong with it
 */
export async function openTokenizer(folder: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
  const tokenizer = await find(folder);
  const padId = options.padId ?? (await padding(folder, tokenizer));
  return padId === undefined ? tokenizer : new Tokenizer(tokenizer.file, { padId });
}

/** Whether `openTokenizer` has something to read there. */
export async function hasTokenizer(folder: string): Promise<boolean> {
  return (await Promise.all(["tokenizer.json", ...MERGES].map((name) => optional(folder, name)))).some((x) => x);
}

async function find(folder: string): Promise<Tokenizer> {
  if (await optional(folder, "tokenizer.json")) return loadTokenizer(join(folder, "tokenizer.json"));
  for (const name of MERGES) {
    const bytes = await optional(folder, name);
    if (!bytes) continue;
    const text = name.endsWith(".gz") ? unzipped(bytes, join(folder, name)) : bytes;
    const merges = readMerges(text.toString("utf8"), join(folder, name));
    const listed = await optional(folder, "vocab.json");
    const vocab = listed ? readVocabulary(listed.toString("utf8"), join(folder, "vocab.json")) : numbered(merges);
    return tokenizerOf(vocab, merges, join(folder, name));
  }
  throw new Error(`${basename(folder)} has no tokenizer: neither tokenizer.json nor merges.txt (with vocab.json)`);
}

/** Throws one line for what is damaged, or a bomb. */
function unzipped(bytes: Buffer, where: string): Buffer {
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_TEXT });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "ERR_BUFFER_TOO_LARGE" ? `holds more than ${MAX_TEXT} bytes` : message;
    throw new Error(`${where}: ${why}`, { cause: error });
  }
}

function tokenizerOf(
  vocab: Readonly<Record<string, number>>,
  merges: readonly (readonly [string, string])[],
  where: string,
): Tokenizer {
  try {
    return new Tokenizer(clipFile(vocab, merges));
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

/** Lines "left right" in the order in which they are applied, below a line about the version. */
function readMerges(text: string, where: string): [string, string][] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const start = lines[0]?.includes("#version") ? 1 : 0;
  const merges = lines.slice(start, basename(where).startsWith("bpe_simple") ? start + CLIP_MERGES : undefined);
  return merges.map((line, i) => {
    const parts = line.trim().split(" ");
    if (parts.length !== 2) throw new Error(`${where}: merge ${i} is "${line}", not two tokens with a space between`);
    return [parts[0], parts[1]];
  });
}

function readVocabulary(text: string, where: string): Readonly<Record<string, number>> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${where} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const vocab = z.record(z.string(), z.int().nonnegative()).safeParse(json);
  if (!vocab.success) throw new Error(`${where} is not an object from tokens to ids`);
  if (!Object.keys(vocab.data).some((token) => token.endsWith(END_OF_WORD)))
    throw new Error(
      `${where}: no token ends a word (${END_OF_WORD}); only CLIP's tokenizer can be read without tokenizer.json`,
    );
  return vocab.data;
}

/** CLIP's numbering: bytes, bytes ending a word, a token per merge, start and end. */
function numbered(merges: readonly (readonly [string, string])[]): Record<string, number> {
  const tokens = [...BYTE_TOKENS, ...merges.map(([left, right]) => left + right), START, END];
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

const config = z.looseObject({ pad_token: z.union([z.string(), z.looseObject({ content: z.string() })]).nullish() });

/** Id of the padding token that a folder names; undefined where it names none. */
async function padding(folder: string, tokenizer: Tokenizer): Promise<number | undefined> {
  const bytes = await optional(folder, "tokenizer_config.json");
  if (!bytes) return undefined;
  const where = join(folder, "tokenizer_config.json");
  let read: ReturnType<typeof config.safeParse> | undefined;
  try {
    read = config.safeParse(JSON.parse(bytes.toString("utf8")));
  } catch (error) {
    throw new Error(`${where} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (!read.success) throw new Error(`${where}: pad_token is no token`);
  const token = read.data.pad_token;
  if (!token) return undefined;
  const content = typeof token === "string" ? token : token.content;
  const id = tokenizer.idOf(content);
  if (id === undefined) throw new Error(`${where}: the padding token ${content} is not in the vocabulary`);
  return id;
}

async function optional(folder: string, file: string): Promise<Buffer | null> {
  return readFile(join(folder, file)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw error;
  });
}
