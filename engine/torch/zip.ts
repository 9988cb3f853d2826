// The container of torch files since 1.6: a zip archive with one pickle and one member per storage. Members are read by
// range, never the whole file; deflated ones, which torch itself does not write, are inflated one at a time. Zip's own
// structure is read by yauzl, loaded when the first such file is opened.

import type { Entry, ZipFile } from "yauzl";
import type { Source } from "../source.ts";
import { type Archive, type Extent, MAX_PICKLE, parsePickle } from "./archive.ts";
import { TorchFileError } from "./error.ts";
import type { StorageRef } from "./world.ts";

export function isZip(head: Uint8Array): boolean {
  return head[0] === 0x50 && head[1] === 0x4b && (head[2] === 3 || head[2] === 5);
}

/** The pickled object of the archive and its storages. */
export async function openZip(source: Source): Promise<Archive> {
  const zip = await open(source);
  const members = await list(source, zip);
  const pickles = [...members.keys()].filter((name) => /(^|\/)data\.pkl$/.test(name));
  if (pickles.length !== 1) throw new TorchFileError(source.label, `expected one data.pkl, found ${pickles.length}`);
  const prefix = pickles[0].slice(0, -"data.pkl".length);
  if (members.has(`${prefix}constants.pkl`))
    throw new TorchFileError(source.label, "a TorchScript program, not a checkpoint: save its state_dict() instead");
  const small = async (name: string): Promise<Uint8Array> => {
    const member = members.get(name) as Member;
    if (member.bytes > MAX_PICKLE) throw new TorchFileError(source.label, `${name} has ${member.bytes} bytes`);
    return new Uint8Array(await member.read(0, member.bytes));
  };
  const order = members.has(`${prefix}byteorder`)
    ? new TextDecoder().decode(await small(`${prefix}byteorder`))
    : "little";
  if (order !== "little" && order !== "big") throw new TorchFileError(source.label, "an unknown byte order");
  const storages = new Map<string, StorageRef>();
  const { value } = parsePickle(source.label, await small(pickles[0]), 0, storages);
  return { value, storages, bigEndian: order === "big", extent: (key) => members.get(`${prefix}data/${key}`) };
}

/** A member: its size when inflated, and its bytes. */
type Member = Extent;

async function open(source: Source): Promise<ZipFile> {
  const { default: yauzl } = await import("yauzl");
  if (!yauzl?.RandomAccessReader)
    throw new TorchFileError(source.label, "zip archives are not read in a browser: convert it to safetensors");
  class Reader extends yauzl.RandomAccessReader {
    #window = { begin: 0, bytes: new Uint8Array(0) };

    /** yauzl asks for a few bytes at a time, mostly one after another. */
    override read(to: Buffer, offset: number, length: number, position: number, done: (e: Error | null) => void): void {
      this.#bytes(position, length).then(
        (bytes) => {
          to.set(bytes, offset);
          done(null);
        },
        (error: Error) => done(error),
      );
    }

    async #bytes(position: number, length: number): Promise<Uint8Array> {
      if (position < 0 || position + length > source.size) throw new Error("the archive is cut off");
      const { begin, bytes } = this.#window;
      if (position < begin || position + length > begin + bytes.length) {
        const end = Math.min(source.size, position + Math.max(length, WINDOW));
        this.#window = { begin: position, bytes: new Uint8Array(await source.bytes(position, end)) };
      }
      const from = position - this.#window.begin;
      return this.#window.bytes.subarray(from, from + length);
    }
  }
  const options = { autoClose: false, lazyEntries: true };
  return yauzl.fromRandomAccessReaderPromise(new Reader(), source.size, options).catch(refuse(source));
}

const WINDOW = 1 << 16;

const refuse =
  ({ label }: Source) =>
  (error: Error): never => {
    throw new TorchFileError(label, `not a valid zip archive: ${error.message}`);
  };

async function list(source: Source, zip: ZipFile): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const all = async (): Promise<void> => {
    for await (const entry of zip.eachEntry()) {
      if (members.has(entry.fileName)) throw new Error(`"${entry.fileName}" is there twice`);
      members.set(entry.fileName, await member(source, zip, entry));
    }
  };
  await all().catch(refuse(source));
  return members;
}

const [STORED, DEFLATED] = [0, 8];
/** Deflate makes nothing smaller than this part of itself: what claims to be more is not there. */
const MOST_DEFLATED = 1032;

async function member(source: Source, zip: ZipFile, entry: Entry): Promise<Member> {
  const { fileName, compressionMethod: method, compressedSize, uncompressedSize: bytes } = entry;
  if (entry.isEncrypted()) throw new Error(`"${fileName}" is encrypted`);
  if (method !== STORED && method !== DEFLATED) throw new Error(`"${fileName}" has compression method ${method}`);
  if (bytes > compressedSize * MOST_DEFLATED) throw new Error(`"${fileName}" claims ${bytes} bytes`);
  const { fileDataStart: start } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
  if (start + compressedSize > source.size) throw new Error(`"${fileName}" ends behind the file`);
  if (method === STORED && bytes !== compressedSize) throw new Error(`"${fileName}" has two sizes`);
  if (method === STORED) return { bytes, read: (from, to) => source.bytes(start + from, start + to) };
  const inflated = async (): Promise<ArrayBuffer> =>
    inflate(await source.bytes(start, start + compressedSize), bytes).catch(refuse(source));
  return { bytes, read: async (from, to) => (await inflated()).slice(from, to) };
}

/** Throws unless exactly `size` bytes come out; never holds more. */
async function inflate(deflated: ArrayBuffer, size: number): Promise<ArrayBuffer> {
  const out = new Uint8Array(size);
  let at = 0;
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    if (at + chunk.length > size) throw new Error("a member inflates to more than its size");
    out.set(chunk, at);
    at += chunk.length;
  }
  if (at !== size) throw new Error(`a member inflates to ${at} of ${size} bytes`);
  return out.buffer;
}
