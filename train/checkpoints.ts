// The numbered checkpoints of a run: `checkpoints/step-000100/` with the parameters (state.safetensors) and the rest of what
// a resumed run needs (state.json). A folder gets its name when all of it is on the disk, so a killed process leaves either
// a whole checkpoint or none. What the run folder holds besides is run.ts.

import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileSha256 } from "../data/hash.ts";
import { replaceFile, syncFolder } from "../engine/atomic.ts";
import { save } from "../engine/checkpoint.ts";
import type { Parameter } from "../engine/index.ts";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface Checkpoint {
  /** Optimiser steps done. */
  readonly step: number;
  /** The safetensors file. */
  readonly path: string;
  /** Of the safetensors file: equal runs have equal hashes. */
  readonly sha256: string;
  /** What the training loop gave to be kept beside the parameters, e.g. the position in the data. */
  readonly extra: Json;
}

/** What state.json holds; `bytes` and `sha256` tell a whole safetensors file from a damaged one. */
interface StateFile {
  readonly step: number;
  readonly bytes: number;
  readonly sha256: string;
  readonly extra: Json;
}

const PARAMETERS = "state.safetensors";
const STATE = "state.json";
const ASIDE = ".aside-"; // prefix of folders that are being written or deleted

/** Which checkpoints stay: the newest ones, and where `every` is given those of its multiples. */
export interface Keep {
  readonly newest: number;
  readonly every?: number;
}

/**
 * Writes a checkpoint and deletes all but those to keep. One that is already there, whole, for this step stays as it
 * is: the steps of a run are deterministic.
 */
export async function writeCheckpoint(
  folder: string,
  step: number,
  state: ReadonlyMap<string, Parameter>,
  extra: Json,
  { newest, every = Number.POSITIVE_INFINITY }: Keep,
): Promise<Checkpoint> {
  const target = join(folder, nameOf(step));
  const present = await readCheckpoint(target);
  if (present) return present;
  const aside = join(folder, `${ASIDE}${nameOf(step)}`);
  await rm(aside, { recursive: true, force: true });
  await mkdir(aside, { recursive: true });
  const path = join(aside, PARAMETERS);
  await save(path, state, { step: String(step) });
  const { size: bytes } = await stat(path);
  const content: StateFile = { step, bytes, sha256: await fileSha256(path), extra };
  await replaceFile(join(aside, STATE), (file) => file.writeFile(`${JSON.stringify(content, null, 2)}\n`));
  await discard(folder, nameOf(step)); // a damaged one
  await rename(aside, target);
  await syncFolder(folder);
  const old = (await stepsIn(folder)).slice(0, -newest);
  for (const other of old.filter((k) => k % every !== 0)) await discard(folder, nameOf(other));
  return { step, path: join(target, PARAMETERS), sha256: content.sha256, extra };
}

/** The newest whole checkpoint, or null. Damaged ones are passed over: `onDamaged` is told which. */
export async function latestCheckpoint(folder: string, onDamaged?: (path: string) => void): Promise<Checkpoint | null> {
  for (const step of (await stepsIn(folder)).reverse()) {
    const path = join(folder, nameOf(step));
    const checkpoint = await readCheckpoint(path);
    if (checkpoint) return checkpoint;
    onDamaged?.(path);
  }
  return null;
}

/** The checkpoint of one step, whole; null where there is none. */
export async function checkpointAt(folder: string, step: number): Promise<Checkpoint | null> {
  return readCheckpoint(join(folder, nameOf(step)));
}

/** Deletes what a killed process was writing or deleting. */
export async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readNames(folder)) {
    if (name.startsWith(ASIDE)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

function nameOf(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

/** Steps of all folders with a checkpoint's name, ascending. */
export async function stepsIn(folder: string): Promise<number[]> {
  const steps = (await readNames(folder)).map((name) => Number(/^step-(\d{6,})$/.exec(name)?.[1] ?? Number.NaN));
  return steps.filter((step) => !Number.isNaN(step)).sort((a, b) => a - b);
}

async function readNames(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}

/** The checkpoint in this folder, or null when something of it is missing or not as it was written. */
async function readCheckpoint(folder: string): Promise<Checkpoint | null> {
  const path = join(folder, PARAMETERS);
  try {
    const { step, bytes, sha256, extra } = JSON.parse(await readFile(join(folder, STATE), "utf8")) as StateFile;
    const whole = (await stat(path)).size === bytes && (await fileSha256(path)) === sha256;
    return whole ? { step, path, sha256, extra } : null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Takes the name away first, so that a half-deleted folder is never seen under it. */
async function discard(folder: string, name: string): Promise<void> {
  const aside = join(folder, `${ASIDE}old-${name}`);
  await rm(aside, { recursive: true, force: true });
  try {
    await rename(join(folder, name), aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  await rm(aside, { recursive: true });
}
