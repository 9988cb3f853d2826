// Tuning files: which kernel variant serves which class of shapes on one adapter, as `gifgrad tune` measured it (tune.ts).
// One JSON file per adapter in the user's cache folder; openDevice reads it. Not in browsers, which have no files.

import { env, processFor } from "./env.ts";
import { DeviceError } from "./error.ts";

export interface TuningFile {
  readonly format: 1;
  readonly adapter: string;
  /** Class of shapes (`tuningKey`) -> name of the variant. Classes whose default is fastest are only in `measured`. */
  readonly choices: Readonly<Record<string, string>>;
  /** Milliseconds of each variant that computes the right thing, by class; the default comes first. */
  readonly measured: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** `$XDG_CACHE_HOME/gifgrad/tune/<adapter>.json`, in `~/.cache` where that variable is not set. */
export function tuningPath(adapter: string): string {
  const node = processFor("a tuning file");
  const { join } = node.getBuiltinModule("node:path");
  const cache = env.XDG_CACHE_HOME || join(node.getBuiltinModule("node:os").homedir(), ".cache");
  const name = adapter.toLowerCase().replace(/[^a-z0-9.]+/g, "-");
  return join(cache, "gifgrad", "tune", `${name.replace(/^-+|-+$/g, "")}.json`);
}

/** The file's contents; null where there is no file. Throws DeviceError when it is not one, or of another adapter. */
export function readTuning(path: string, adapter: string): TuningFile | null {
  const { existsSync, readFileSync } = processFor("a tuning file").getBuiltinModule("node:fs");
  if (!existsSync(path)) return null;
  const found = parse(readFileSync(path, "utf8"));
  if (!found) throw new DeviceError(`${path} is not a tuning file: delete it, or make one with \`npx gifgrad tune\``);
  if (found.adapter !== adapter) {
    throw new DeviceError(
      `${path} was measured on ${found.adapter}, this is ${adapter}: its choices do not carry over (openDevice({ tuned: false }) uses none)`,
    );
  }
  return found;
}

function parse(text: string): TuningFile | null {
  try {
    const file = JSON.parse(text) as Partial<TuningFile> | null;
    const tables = file && [file.choices, file.measured].every((t) => typeof t === "object" && t !== null);
    return tables && file.format === 1 ? (file as TuningFile) : null;
  } catch {
    return null;
  }
}

/** What openDevice's option `tuned` means on an adapter: choices, or undefined for none. */
export function tunedChoices(tuned: string | false | undefined, adapter: string): TuningFile["choices"] | undefined {
  if (tuned === false || typeof process === "undefined") return undefined;
  const found = readTuning(tuned ?? tuningPath(adapter), adapter);
  if (tuned && !found)
    throw new DeviceError(`${tuned} does not exist: make it with \`npx gifgrad tune --out ${tuned}\``);
  return found?.choices;
}
