// Golden kind "torch-pickle": checkpoint files, good, malicious and damaged. expectations.json says of each what a safe
// loader must do. One check per file: it loads with exactly the values that safetensors files beside it hold, or it is
// refused in one line that names it (and, for a malicious one, the global that it would have called).

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { SafetensorsError } from "../../engine/safetensors.ts";
import type { TensorFile } from "../../engine/source.ts";
import { openTensors } from "../../engine/tensor_file.ts";
import { TorchFileError } from "../../engine/torch/index.ts";
import { exists, peekJson, readJson } from "./files.ts";
import { broken, type Check, type Kind } from "./kind.ts";

type Expectations = Readonly<Record<string, { readonly expect: string }>>;
type Values = ReadonlyMap<string, Float64Array>;

export const torchPickle: Kind = {
  name: "torch-pickle",
  recognises: async (folder) => {
    const json = await peekJson(folder, "expectations.json");
    const entries = typeof json === "object" && json !== null ? Object.values(json) : [];
    return entries.length > 0 && entries.every((e) => typeof (e as { expect?: unknown }).expect === "string");
  },
  run,
};

async function* run(folder: string): AsyncGenerator<Check> {
  const expectations = await readJson<Expectations>(folder, "expectations.json");
  const known = new Map<string, Float64Array>();
  for (const file of ["weights.safetensors", "extra_expected.safetensors"])
    if (await exists(folder, file))
      for (const [name, data] of await everything(join(folder, file))) known.set(name, data);
  for (const [file, { expect }] of Object.entries(expectations)) {
    const problem = await judge(join(folder, file), expect, known).catch((error: Error) => error.message);
    yield problem === null ? { name: file, error: 0, bound: 0, ok: true } : broken(file, problem);
  }
}

/** What is wrong with how the file is read; null: nothing. */
async function judge(path: string, expect: string, known: Values): Promise<string | null> {
  const opened = await openAll(path);
  const [mayLoad, mayRefuse] = [/^load|either is accepted/.test(expect), /refuse/.test(expect)];
  // What a malicious file would have left behind, had any of it been run.
  if (existsSync("golden_pwned_marker")) return "code of the file was run";
  if (opened instanceof Error) return mayRefuse ? unclear(opened, path) : opened.message;
  return mayLoad ? wrongValues(path, opened, known) : "was loaded, but must be refused";
}

/** Every tensor's values, or the error that ended the reading. */
async function openAll(path: string): Promise<Values | Error> {
  return everything(path).catch((error: Error) => error);
}

async function everything(path: string): Promise<Values> {
  const file: TensorFile = await openTensors(path);
  try {
    const values = new Map<string, Float64Array>();
    for (const name of file.tensors.keys()) values.set(name, await file.readFloat64(name));
    return values;
  } finally {
    await file.close();
  }
}

function unclear(error: Error, path: string): string | null {
  if (!(error instanceof SafetensorsError || error instanceof TorchFileError)) return `${error.name}: ${error.message}`;
  if (!error.message.includes(basename(path)) || error.message.includes("\n")) return `unclear: ${error.message}`;
  const evil = basename(path).startsWith("evil_");
  return evil && !/it uses \w+\.\w+/.test(error.message) ? `does not name the global: ${error.message}` : null;
}

async function wrongValues(path: string, found: Values, known: Values): Promise<string | null> {
  const beside = path.replace(/\.safetensors$/, "_as_f64.safetensors");
  const twin = beside !== path && existsSync(beside) ? await everything(beside) : undefined;
  const safetensors = path.endsWith(".safetensors");
  for (const [name, data] of found) {
    const want =
      twin?.get(name) ?? found.get(`${name}_as_f32`) ?? (safetensors ? data : expected(path, name, data, known));
    if (!want) return `no values are known for "${name}"`;
    const at = data.findIndex((x, i) => !Object.is(x, want[i]));
    if (at >= 0 || data.length !== want.length) return `"${name}": element ${at} is ${data[at]}, expected ${want[at]}`;
  }
  return basename(dirname(path)) === "safetensors" ? null : lost(found, known);
}

/** A nested state dictionary has the values of the plain one; small files hold 0, 1, 2, ... as "w". */
function expected(path: string, name: string, data: Float64Array, known: Values): Float64Array | undefined {
  if (name === "tensor") return known.get(basename(path).replace(/\.\w+$/, ""));
  const stored = known.get(name) ?? known.get(name.replace(/^state_dict\./, ""));
  if (stored) return stored;
  const step = name.endsWith(".step") && data.length === 1; // an optimiser's count of steps: any whole number
  return step ? data.map(Math.round) : name === "w" ? data.map((_, i) => i) : undefined;
}

/** A file that holds one of a state dictionary's tensors holds them all. */
function lost(found: Values, known: Values): string | null {
  const plain = new Set([...found.keys()].map((name) => name.replace(/^state_dict\./, "")));
  const wanted = [...known.keys()].filter((name) => !/^bare_|^optimizer_states/.test(name));
  const missing = wanted.filter((name) => !plain.has(name));
  return missing.length === 0 || missing.length === wanted.length ? null : `has no ${missing.join(", ")}`;
}
