// Stickers in tar and zip archives, read from front to back without unpacking. A member's neighbour of the same name ending in
// .json or .txt describes it, which is WebDataset's layout. Nothing of an archive is ever written under a name it chose.

import { createReadStream, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { type Entry, getFileNameLowLevel, open, type ZipFile } from "yauzl";
import { LIMITS } from "../../decode/limits.ts";
import type { SourceOf } from "../config.ts";
import { HEAD_BYTES, openName, PassedOver, STICKER_NAME, stickerHead } from "./sniff.ts";
import { fault, fileStamp, folderWords, type Reading, type SourceEntry, wordList } from "./source.ts";

const ARCHIVE = /\.(tar|tar\.gz|tgz|zip)$/i;
const DESCRIPTION = /\.(json|txt)$/i;
/** Descriptions are small; what is larger is something else. */
const DESCRIPTION_BYTES = 1 << 20;

interface Member {
  readonly name: string;
  /** By the name, or where that leaves it open by the first bytes. */
  readonly kind: "sticker" | "description" | "other";
  /** The whole content, or why it is not taken; nothing of what is neither sticker nor description. */
  readonly bytes: Uint8Array | string;
}

export async function* archiveEntries(
  { name, path, words }: SourceOf<"archive">,
  { note }: Reading,
): AsyncGenerator<SourceEntry> {
  const passed = new PassedOver();
  for (const file of await archives(path)) {
    const stamp = await fileStamp(file);
    try {
      if (!(await stat(file)).isFile()) throw new Error("not a regular file");
      const members = /\.zip$/i.test(file) ? zipMembers(file) : tarMembers(file);
      for await (const entry of paired(members, basename(file), words, passed)) yield { ...entry, stamp };
    } catch (error) {
      // What came before the damage is taken, and so are the other archives.
      yield { ...fault(basename(file), error as Error), stamp };
    }
  }
  for (const line of passed.told(name)) note(line);
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
  passed: PassedOver,
): AsyncGenerator<SourceEntry> {
  let current: Member[] = [];
  let damage: { readonly error: unknown } | undefined;
  try {
    for await (const member of members) {
      if (current.length > 0 && stem(member.name) !== stem(current[0].name)) {
        yield* sample(current, archive, words, passed);
        current = [];
      }
      current.push(member);
    }
  } catch (error) {
    damage = { error };
  }
  yield* sample(current, archive, words, passed);
  if (damage) throw damage.error;
}

function* sample(
  members: readonly Member[],
  archive: string,
  words: SourceOf<"archive">["words"],
  passed: PassedOver,
): Generator<SourceEntry> {
  const about = describe(members);
  const stickers = members.filter(({ kind }) => kind === "sticker");
  for (const { name, kind, bytes } of members) {
    const alone = kind === "description" && stickers.length === 0;
    if (alone || kind === "other") passed.add(`${archive}/${name}`, bytes === IRREGULAR ? bytes : undefined);
  }
  for (const { name, bytes } of stickers) {
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
  const texts = members.filter(({ kind, bytes }) => kind === "description" && typeof bytes !== "string");
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

/** What a member is by its name; undefined: its first bytes say. */
function kindOf(name: string): Member["kind"] | undefined {
  if (STICKER_NAME.test(name)) return "sticker";
  if (DESCRIPTION.test(name)) return "description";
  return openName(name) ? undefined : "other";
}

const LIMIT = { sticker: LIMITS.fileBytes, description: DESCRIPTION_BYTES, other: 0 } as const;

/** Links and devices of a tar: nothing follows their names. */
const IRREGULAR = "links or devices";
const IRREGULAR_TYPES: readonly string[] = ["link", "symlink", "character-device", "block-device", "fifo"];

const damaged = (error: unknown): Error => new Error(`the archive is damaged: ${(error as Error).message}`);

/** A member that is not read: of no use, too large, or with a name that no honest one has. Undefined: it is to be read. */
function unread(name: string, kind: Member["kind"], size: number): Member | undefined {
  if (kind === "other") return { name, kind, bytes: "" };
  if (/^([a-z]:|\/)/i.test(name) || name.split("/").includes(".."))
    return { name, kind, bytes: "a name that leads out of the archive" };
  if (size > LIMIT[kind])
    return { name, kind, bytes: `the member has ${size} bytes, more than the limit of ${LIMIT[kind]}` };
  return undefined;
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
      if (type === "file" || type === "contiguous-file") yield await tarMember(name, size, entry);
      else entry.resume();
      if (IRREGULAR_TYPES.includes(type ?? "")) yield { name, kind: "other", bytes: IRREGULAR };
    }
  } catch (error) {
    throw damaged(error);
  } finally {
    raw.destroy();
  }
}

/** Reads a member to its end, where the next begins, and keeps what is of use. */
async function tarMember(name: string, size: number, content: AsyncIterable<unknown>): Promise<Member> {
  let kind = kindOf(name);
  let member = kind && unread(name, kind, size);
  const kept: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of content) {
    if (member) continue;
    kept.push(chunk as Uint8Array);
    length += (chunk as Uint8Array).length;
    if (kind || length < Math.min(size, HEAD_BYTES)) continue;
    kind = stickerHead(Buffer.concat(kept)) ? "sticker" : "other";
    member = unread(name, kind, size);
  }
  return member ?? { name, kind: kind ?? "other", bytes: Buffer.concat(kept) };
}

async function* zipMembers(path: string): AsyncGenerator<Member> {
  const zip = await openZip(path);
  try {
    // Members of a zip come in any order; sorted, a sticker and its description are neighbours.
    const list = (await zipEntries(zip)).map((entry) => ({ name: memberName(entry), entry }));
    list.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { name, entry } of list) {
      if (name.endsWith("/")) continue; // a folder
      const kind = kindOf(name) ?? (stickerHead(await headOf(zip, entry)) ? "sticker" : "other");
      yield unread(name, kind, entry.uncompressedSize) ?? { name, kind, bytes: await readEntry(zip, entry) };
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

/** The first bytes; none where the content cannot be had. */
async function headOf(zip: ZipFile, entry: Entry): Promise<Uint8Array> {
  const stream = await new Promise<Readable | null>((resolve) => {
    zip.openReadStream(entry, (error, opened) => resolve(error ? null : opened));
  });
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of stream ?? []) {
      chunks.push(chunk);
      length += chunk.length;
      if (length >= HEAD_BYTES) break;
    }
  } catch {
    // damaged: it is told of where the name says that it is a sticker
  }
  return Buffer.concat(chunks);
}
