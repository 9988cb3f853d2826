// SHA-256, by which files, stickers and settings are told apart everywhere outside the engine. What is hashed piece by piece
// while it is made (caches, features) has its own digest where it is written.

import { createHash, hash } from "node:crypto";
import { createReadStream } from "node:fs";

/** Of a text or of bytes, in hex. */
export function sha256(data: string | Uint8Array): string {
  return hash("sha256", data); // at once: half the time of a Hash that is updated
}

/** Of the JSON of a value, in hex. */
export function sha256Json(value: unknown): string {
  return sha256(JSON.stringify(value));
}

/** Of a file, read piece by piece, in hex. Throws what opening it throws. */
export async function fileSha256(path: string): Promise<string> {
  const whole = createHash("sha256");
  for await (const piece of createReadStream(path)) whole.update(piece as Uint8Array);
  return whole.digest("hex");
}

/** A number in [0, 1) that follows from the data: evenly spread, the same in every run and on every machine. */
export function unitHash(data: string | Uint8Array): number {
  return Number.parseInt(sha256(data).slice(0, 8), 16) / 2 ** 32;
}
