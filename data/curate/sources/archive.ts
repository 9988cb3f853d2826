// Stickers in tar and zip archives, read from front to back without unpacking. A member's neighbour of the same name ending in
// .json or .txt describes it, which is WebDataset's layout. Nothing of an archive is ever written under a name it chose.

import { createReadStream, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { type Entry, getFileNameLowLevel, open, type ZipFile } from "yauzl";
import { LIMITS } from "../../decode/limits.ts";
import type { SourceOf } from "../config.ts";
import { fault, fileStamp, folderWords, type SourceEntry, STICKER_NAME, wordList } from "./source.ts";

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
    const stamp = await fileStamp(file);
    try {
      if (!(await stat(file)).isFile()) throw new Error("not a regular file");
      const members = /\.zip$/i.test(file) ? zipMembers(file) : tarMembers(file);
      for await (const entry of paired(members, basename(file), words)) yield { ...entry, stamp };
    } catch (error) {
      // What came before the damage is taken, and so are the other archives.
      yield { ...fault(basename(file), error as Error), stamp };
    }
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
  let damage: { readonly error: unknown } | undefined;
  try {
    for await (const member of members) {
      if (current.length > 0 && stem(member.name) !== stem(current[0].name)) {
        yield* sample(current, archive, words);
        current = [];
      }
      current.push(member);
    }
  } catch (error) {
    damage = { error };
  }
  yield* sample(current, archive, words);
  if (damage) throw damage.error;
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

const damaged = (error: unknown): Error => new Error(`the archive is damaged: ${(error as Error).message}`);

const tooLarge = (size: number, limit: number): string =>
  `the member has ${size} bytes, more than the limit of ${limit}`;

/** Nothing is written under a member's name, but one like this is no honest member's. */
function nameFault(name: string): string | undefined {
  const out = /^([a-z]:|\/)/i.test(name) || name.split("/").includes("..");
  return out ? "a name that leads out of the archive" : undefined;
}

async function* tarMembers(path: string): AsyncGenerator<Member> {
  const parse = extract();
  const raw = createReadStream(path);
  const input = /\.t?gz$/i.test(path) ? raw.pipe(createGunzip()) : raw;
  const fail = (error: Error): void => void parse.destroy(error);
  raw.on("error", fail);
  input.on("error", fail);
  input.pipe(parse);
  try {
    for await (const entry of parse) {
      const { name, size = 0, type } = entry.header;
      const limit = type === "file" || type === "contiguous-file" ? allowance(name) : 0;
      const wrong = nameFault(name) ?? (size > limit ? tooLarge(size, limit) : undefined);
      if (limit === 0 || wrong !== undefined) {
        entry.resume();
        if (limit > 0 && wrong !== undefined) yield { name, bytes: wrong };
      } else yield { name, bytes: await buffer(entry) };
    }
  } catch (error) {
    throw damaged(error);
  } finally {
    raw.destroy();
  }
}

async function* zipMembers(path: string): AsyncGenerator<Member> {
  const zip = await openZip(path);
  try {
    // Members of a zip come in any order; sorted, a sticker and its description are neighbours.
    const list = (await zipEntries(zip)).map((entry) => ({ name: memberName(entry), entry }));
    list.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { name, entry } of list) {
      const limit = allowance(name);
      if (limit === 0) continue;
      const size = entry.uncompressedSize;
      const wrong = nameFault(name) ?? (size > limit ? tooLarge(size, limit) : undefined);
      yield { name, bytes: wrong ?? (await readEntry(zip, entry)) };
    }
  } finally {
    zip.close();
  }
}

function openZip(path: string): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    // yauzl would end at the first name that leads out; undecoded, names are judged one by one.
    open(path, { lazyEntries: true, autoClose: false, decodeStrings: false }, (error, zip) => {
      if (error) reject(damaged(error));
      else resolve(zip);
    });
  });
}

function memberName({ generalPurposeBitFlag, fileNameRaw, extraFields }: Entry): string {
  return getFileNameLowLevel(generalPurposeBitFlag, fileNameRaw, extraFields, false);
}

function zipEntries(zip: ZipFile): Promise<Entry[]> {
  return new Promise((resolve, reject) => {
    const found: Entry[] = [];
    zip.on("entry", (entry: Entry) => {
      found.push(entry);
      zip.readEntry();
    });
    zip.on("end", () => resolve(found));
    zip.on("error", (error: Error) => reject(damaged(error)));
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
