// Stickers in tar and zip archives, read from front to back without unpacking. A member's neighbour of the same name ending in
// .json or .txt describes it, which is WebDataset's layout. Nothing of an archive is ever written under a name it chose.

import { createReadStream, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { type Entry, open, type ZipFile } from "yauzl";
import { LIMITS } from "../../decode/limits.ts";
import type { SourceOf } from "../config.ts";
import { fileStamp, folderWords, type SourceEntry, STICKER_NAME, wordList } from "./source.ts";

const ARCHIVE = /\.(tar|tar\.gz|tgz|zip)$/i;
const DESCRIPTION = /\.(json|txt)$/i;
/** Descriptions are small; what is larger is something else. */
const DESCRIPTION_BYTES = 1 << 20;

interface Member {
  readonly name: string;
  /** The whole content, or why it is not taken. */
  readonly bytes: Uint8Array | string;
}

export async function* archiveEntries({ path, words }: SourceOf<"archive">): AsyncGenerator<SourceEntry> {
  for (const file of await archives(path)) {
    const members = /\.zip$/i.test(file) ? zipMembers(file) : tarMembers(file);
    const stamp = await fileStamp(file);
    for await (const entry of paired(members, basename(file), words)) yield { ...entry, stamp };
  }
}

async function archives(path: string): Promise<string[]> {
  if (!existsSync(path)) throw new Error(`the archive ${path} does not exist`);
  if (!(await stat(path)).isDirectory()) {
    if (ARCHIVE.test(path)) return [path];
    throw new Error(`${path} is not a .tar, .tar.gz, .tgz or .zip`);
  }
  const names = (await readdir(path)).filter((name) => ARCHIVE.test(name)).sort();
  if (names.length === 0) throw new Error(`${path} holds no .tar, .tar.gz, .tgz or .zip`);
  return names.map((name) => join(path, name));
}

/** The name without its last extension: what WebDataset calls the key. */
function stem(name: string): string {
  return name.replace(/\.[^./]+$/, "");
}

/**
 * Joins stickers and their descriptions, which may come in either order: an entry is yielded when a member of another stem
 * comes, as in WebDataset, whose samples are contiguous.
 */
async function* paired(
  members: AsyncIterable<Member>,
  archive: string,
  words: SourceOf<"archive">["words"],
): AsyncGenerator<SourceEntry> {
  let current: Member[] = [];
  for await (const member of members) {
    if (current.length > 0 && stem(member.name) !== stem(current[0].name)) {
      yield* sample(current, archive, words);
      current = [];
    }
    current.push(member);
  }
  yield* sample(current, archive, words);
}

function* sample(
  members: readonly Member[],
  archive: string,
  words: SourceOf<"archive">["words"],
): Generator<SourceEntry> {
  const about = describe(members);
  for (const { name, bytes } of members.filter((member) => STICKER_NAME.test(member.name))) {
    yield {
      at: `${archive}/${name}`,
      ...about,
      words: about.words.length > 0 ? about.words : words === "folders" ? folderWords(name) : words,
      bytes: async () => {
        if (typeof bytes === "string") throw new Error(bytes);
        return bytes;
      },
    };
  }
}

type Description = Omit<SourceEntry, "at" | "bytes" | "stamp">;

function describe(members: readonly Member[]): Description {
  const texts = members.filter(({ name, bytes }) => DESCRIPTION.test(name) && typeof bytes !== "string");
  const read = (suffix: string): string | undefined => {
    const found = texts.find(({ name }) => name.toLowerCase().endsWith(suffix));
    return found && new TextDecoder().decode(found.bytes as Uint8Array).replace(/^\uFEFF/, "");
  };
  const plain = read(".txt")?.trim();
  let fields: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(read(".json") ?? "{}");
    if (typeof value === "object" && value !== null) fields = value as Record<string, unknown>;
  } catch {
    // a description that cannot be read is none
  }
  const field = (...names: string[]): string | undefined => {
    const value = names.map((name) => fields[name]).find((v) => typeof v === "string" && v.trim() !== "");
    return value as string | undefined;
  };
  return {
    words: wordList(fields.trigger_words ?? fields.words ?? fields.tags),
    caption: field("caption", "description") ?? (plain || undefined),
    captionZh: field("caption_zh"),
    domain: field("domain"),
    text: field("text", "ocr"),
    subject: field("subject"),
    action: field("action"),
    license: field("license"),
    attribution: field("attribution"),
  };
}

/** Bytes that a member of this name may have; 0: it is skipped. */
function allowance(name: string): number {
  if (STICKER_NAME.test(name)) return LIMITS.fileBytes;
  return DESCRIPTION.test(name) ? DESCRIPTION_BYTES : 0;
}

const tooLarge = (size: number, limit: number): string =>
  `the member has ${size} bytes, more than the limit of ${limit}`;

async function* tarMembers(path: string): AsyncGenerator<Member> {
  const parse = extract();
  const raw = createReadStream(path);
  const input = /\.t?gz$/i.test(path) ? raw.pipe(createGunzip()) : raw;
  const fail = (error: Error): void => void parse.destroy(new Error(`${path} is damaged: ${error.message}`));
  raw.on("error", fail);
  input.on("error", fail);
  input.pipe(parse);
  try {
    for await (const entry of parse) {
      const { name, size = 0, type } = entry.header;
      const limit = type === "file" || type === "contiguous-file" ? allowance(name) : 0;
      if (limit === 0 || size > limit) {
        entry.resume();
        if (limit > 0) yield { name, bytes: tooLarge(size, limit) };
      } else yield { name, bytes: await buffer(entry) };
    }
  } catch (error) {
    throw new Error(`${path} is damaged: ${(error as Error).message}`);
  } finally {
    raw.destroy();
  }
}

async function* zipMembers(path: string): AsyncGenerator<Member> {
  const zip = await openZip(path);
  try {
    // Members of a zip come in any order; sorted, a sticker and its description are neighbours.
    const list = await zipEntries(zip, path);
    list.sort((a, b) => (a.fileName < b.fileName ? -1 : 1));
    for (const entry of list) {
      const limit = allowance(entry.fileName);
      if (limit === 0) continue;
      const large = entry.uncompressedSize > limit;
      const bytes = large ? tooLarge(entry.uncompressedSize, limit) : await readEntry(zip, entry);
      yield { name: entry.fileName, bytes };
    }
  } finally {
    zip.close();
  }
}

function openZip(path: string): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    open(path, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error) reject(new Error(`${path} is damaged: ${error.message}`));
      else resolve(zip);
    });
  });
}

/** yauzl itself refuses names that lead out of the archive: nothing of such a file is taken. */
function zipEntries(zip: ZipFile, path: string): Promise<Entry[]> {
  return new Promise((resolve, reject) => {
    const found: Entry[] = [];
    zip.on("entry", (entry: Entry) => {
      found.push(entry);
      zip.readEntry();
    });
    zip.on("end", () => resolve(found));
    zip.on("error", (error: Error) => reject(new Error(`${path} is damaged: ${error.message}`)));
    zip.readEntry();
  });
}

/** The content, or why it cannot be had: one bad member does not end an archive. yauzl checks the size as it inflates. */
function readEntry(zip: ZipFile, entry: Entry): Promise<Uint8Array | string> {
  return new Promise((resolve) => {
    zip.openReadStream(entry, (error, stream) => {
      if (error) resolve(error.message);
      else buffer(stream).then(resolve, (failure: Error) => resolve(failure.message));
    });
  });
}
