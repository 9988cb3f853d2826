// Fills a file of clips: every file of a data set is decoded once, by processes of its own (curate/pool.ts), each of
// which writes into its place, so that the file is the same whatever their number. A journal beside it says what is
// done: who kills a build loses the files in hand. Called by clip_cache.ts alone.

import { constants } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, dirname } from "node:path";
import { type ClipResult, type ClipShape, type ClipTask, clipBytes, storeClip } from "./clip.ts";
import { entries, openJournal } from "./curate/journal.ts";
import { Pool, WorkerFailure } from "./curate/pool.ts";
import { checkFileSize } from "./decode/limits.ts";
import { readAt } from "./file_at.ts";
import { sha256 } from "./hash.ts";

/** A file to decode. */
export interface Source {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  readonly modified: number;
  /** Why the file cannot even be opened. */
  readonly reason?: string;
}

export interface BuildOptions {
  /** Decoding processes; 0: in this one. Default: one per core, and none for a handful of files. */
  readonly processes?: number;
  /** Called after each file. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Files for which starting a process pays. */
const WORTH_A_PROCESS = 32;
/** Files being read or decoded at a time in this process; sharp works on threads of its own. */
const HERE = 4;

/**
 * Decodes `sources` into `base`.u8, the clip of the i-th at the i-th place, or goes on where an earlier build was
 * stopped. The places of those that cannot be used stay empty. Afterwards the pixels are on the disk, and the journal
 * is the caller's to remove.
 * @returns a result for each source
 */
export async function buildClips(
  sources: readonly Source[],
  shape: ClipShape,
  base: string,
  { processes, onProgress = () => {} }: BuildOptions,
): Promise<ClipResult[]> {
  const target = `${base}.u8`;
  const file = await open(target, constants.O_RDWR | constants.O_CREAT);
  try {
    await file.truncate(sources.length * clipBytes(shape)); // takes no room before something is written
    const results = sources.map(unusable);
    await takeFinished(results, file, shape, journalPath(base));
    const todo = results.flatMap((result, slot) => (result ? [] : [slot]));
    let done = sources.length - todo.length;
    for (let i = 0; i < done; i++) onProgress(i + 1, sources.length);
    const tasks = todo.map((slot): ClipTask => ({ path: sources[slot].path, shape, target, slot }));
    const journal = await openJournal<ClipResult>(dirname(base), basename(base));
    try {
      await decodeAll(tasks, processes ?? processesFor(todo.length), ({ slot }, result) => {
        journal.append(String(slot), sources[slot].name, result);
        results[slot] = result;
        onProgress(++done, sources.length);
      });
    } finally {
      journal.close();
    }
    await file.datasync();
    return results as ClipResult[]; // each has been filled in
  } finally {
    await file.close();
  }
}

export const journalPath = (base: string): string => `${base}.jsonl`;

/** What is known of a file without reading it: nothing, unless it cannot be used. */
function unusable({ bytes, reason }: Source): ClipResult | undefined {
  if (reason) return { reason };
  try {
    checkFileSize(bytes);
  } catch (error) {
    return { reason: (error as Error).message };
  }
  return undefined;
}

const processesFor = (files: number): number => Math.min(availableParallelism(), Math.floor(files / WORTH_A_PROCESS));

/**
 * Fills in what an earlier build has journalled, and its clips bear out: after a power cut a line may be on the disk
 * whose pixels are not.
 */
async function takeFinished(
  results: (ClipResult | undefined)[],
  file: FileHandle,
  shape: ClipShape,
  journal: string,
): Promise<void> {
  const clip = new Uint8Array(clipBytes(shape));
  try {
    for await (const { key, row } of entries<ClipResult>(journal)) {
      const slot = Number(key);
      const whole =
        "reason" in row || ((await readAt(file.fd, clip, slot * clip.length)) && sha256(clip) === row.sha256);
      if (whole) results[slot] = row;
    }
  } catch {
    await rm(journal, { force: true }); // there is none, or it is damaged: what it has not told is done again
  }
}

/**
 * Runs `tasks`, several at a time. Ends when nothing is in hand any more, also where it throws what went wrong first.
 */
async function decodeAll(
  tasks: readonly ClipTask[],
  processes: number,
  onResult: (task: ClipTask, result: ClipResult) => void,
): Promise<void> {
  const pool = processes > 0 && tasks.length > 0 ? new Pool({ processes }) : undefined;
  const run = pool ? (task: ClipTask) => pool.run<ClipResult>({ task: "clip", ...task }).catch(orReason) : storeClip;
  const waiting = tasks.values();
  let failure: { readonly error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (const task of waiting) {
      if (failure) return;
      try {
        onResult(task, await run(task));
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  // Twice as many as processes: one that has finished finds the next request waiting.
  await Promise.all(Array.from({ length: pool ? 2 * processes : HERE }, lane));
  await pool?.close();
  if (failure) throw failure.error;
}

/** A file that has cost its process cannot be used; whatever else went wrong is no fault of the file. */
function orReason(error: unknown): ClipResult {
  if (error instanceof WorkerFailure) return { reason: error.message };
  throw error;
}
