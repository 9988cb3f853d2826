// SHA-256, by which files, stickers and settings are told apart everywhere outside the engine. What is hashed piece by piece
// while it is made (caches, features) has its own digest where it is written.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

/** Of a text or of bytes, in hex. */
export function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Of the JSON of a value, in hex. */
export function sha256Json(value: unknown): string {
  return sha256(JSON.stringify(value));
}

/** Of a file, read piece by piece, in hex. Throws what opening it throws. */
export async function fileSha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path)) hash.update(piece as Uint8Array);
  return hash.digest("hex");
}

/** A number in [0, 1) that follows from the data: evenly spread, the same in every run and on every machine. */
export function unitHash(data: string | Uint8Array): number {
  return Number.parseInt(sha256(data).slice(0, 8), 16) / 2 ** 32;
}
