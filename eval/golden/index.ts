// The golden runner: which kinds of golden folders there are, and running one folder or a folder of folders. Prints nothing;
// called by `gifgrad golden` and by tests.

import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { isThere } from "../../data/regular_file.ts";
import { clip, clipOpenai, clipText } from "./clip.ts";
import { clipPreprocessing } from "./clip_preprocess.ts";
import { clipTokenizer } from "./clip_tokenizer.ts";
import { ddim } from "./ddim.ts";
import { fastVqa } from "./fast_vqa.ts";
import { i2vgenXl } from "./i2vgen_xl.ts";
import { i3d } from "./i3d.ts";
import type { Check, Kind } from "./kind.ts";
import { makeAVideo } from "./make_a_video.ts";
import { ops } from "./ops.ts";
import { optim } from "./optim.ts";
import { pipelineSd } from "./pipeline_sd.ts";
import { stiLayer } from "./sti_layer.ts";
import { torchPickle } from "./torch_pickle.ts";
import { trainSd } from "./train_sd.ts";
import { unet } from "./unet.ts";
import { unet3d } from "./unet3d.ts";
import { vae } from "./vae.ts";
import { vgen } from "./vgen.ts";
import { vgenDdim } from "./vgen_ddim.ts";
import { videogpt } from "./videogpt.ts";

/** Every kind of golden folder, most specific first: the first that recognises a folder runs it. */
export const KINDS: readonly Kind[] = [
  ops,
  optim,
  torchPickle,
  vae,
  pipelineSd,
  trainSd,
  i2vgenXl,
  vgen,
  clipText,
  clip,
  clipOpenai,
  unet,
  unet3d,
  stiLayer,
  makeAVideo,
  videogpt,
  vgenDdim,
  ddim,
  clipPreprocessing,
  clipTokenizer,
  i3d,
  fastVqa,
];

export type Event =
  | { readonly type: "folder"; readonly folder: string; readonly kind: string }
  | { readonly type: "check"; readonly check: Check }
  /** A folder that cannot be checked, or not to its end: one line that says why. Counts as a failure. */
  | { readonly type: "problem"; readonly folder: string; readonly message: string };

/** Runs the checks of `path`, a golden folder or a folder of them, on the open device. */
export async function* golden(path: string): AsyncGenerator<Event> {
  const wrong = await folderProblem(path);
  if (wrong) {
    yield problem(path, wrong);
    return;
  }
  const kind = await kindOf(path);
  const inner = typeof kind === "string" ? await folders(path) : [];
  if (inner.length === 0) yield* checks(path, kind);
  for (const folder of inner) yield* checks(folder, await kindOf(folder));
}

/** Why nothing can be run at `path`; null where there is a folder. Throws the system's error where nobody may look. */
export async function folderProblem(path: string): Promise<string | null> {
  if (!isThere(path)) return "does not exist";
  return (await stat(path)).isDirectory() ? null : "is not a folder";
}

/** The kind of a folder, or why it has none: a file by which it would be known may be damaged. */
async function kindOf(folder: string): Promise<Kind | string> {
  const damage: string[] = [];
  for (const kind of KINDS) {
    const found = await kind.recognises(folder).catch((error: Error) => void damage.push(error.message));
    if (found) return kind;
  }
  return damage[0] ?? `no kind of golden data that is known here (${KINDS.map((k) => k.name).join(", ")})`;
}

async function folders(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true });
  const names = entries.filter((e) => e.isDirectory() && !e.name.startsWith(".")).map((e) => e.name);
  return names.sort().map((name) => join(path, name));
}

async function* checks(folder: string, kind: Kind | string): AsyncGenerator<Event> {
  if (typeof kind === "string") {
    yield problem(folder, kind);
    return;
  }
  yield { type: "folder", folder: basename(folder), kind: kind.name };
  try {
    for await (const check of kind.run(folder)) yield { type: "check", check };
  } catch (error) {
    yield problem(folder, (error as Error).message);
  }
}

function problem(folder: string, message: string): Event {
  return { type: "problem", folder: basename(folder), message: message.replaceAll(/\s*\n\s*/g, " ") };
}
