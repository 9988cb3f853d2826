// `gifgrad import` and `gifgrad export`: checkpoints of other programs into a folder of ours, and back. Both copy tensor by
// tensor and compute nothing.

import { join } from "node:path";
import { loadTokenizer } from "../data/tokenizer.ts";
import { openDevice } from "../engine/index.ts";
import { TOKENIZER_FILE } from "../train/diffusion.ts";
import { exportImported } from "../train/foreign/export.ts";
import { exportModel, kindOf } from "../train/foreign/export_model.ts";
import { importCheckpoint } from "../train/foreign/import.ts";
import { holdsImport, readRecord } from "../train/foreign/record.ts";
import { holdsRun } from "../train/run.ts";
import { loadModel } from "../train/sample.ts";
import type { ExportOptions, ImportOptions } from "./options.ts";
import { existingStage, stageFolder } from "./train.ts";

export async function runImport({ path, as, out, variant, config }: ImportOptions): Promise<void> {
  const onPart = (name: string, tensors: number): void => console.error(`${name}: ${tensors} tensors`);
  const record = await importCheckpoint(path, as, out, { variant, config, onPart });
  console.log(`${out}: ${as} with ${Object.keys(record.parts).join(", ")}`);
  if (as === "i2vgen-xl" && record.scheduler === null)
    console.error(
      "no scheduler_config.json: taken as VGen trained it, on a cosine schedule ending in pure noise, v predicted",
    );
}

/** An imported checkpoint goes back as it came, a trained run in the layout that its system has a place in. */
export async function runExport({ run, as, out }: ExportOptions): Promise<void> {
  if (holdsImport(run)) {
    const record = await readRecord(run);
    check(run, as, record.as);
    await exportImported(run, out);
    console.log(`${out}: ${record.as} with ${Object.keys(record.parts).join(", ")}`);
    return;
  }
  const stages = (["diffusion", "vqvae", "prior"] as const).filter((stage) => holdsRun(stageFolder(run, stage)));
  if (stages.length > 0 && !stages.includes("diffusion"))
    throw new Error(`${run} holds videogpt: export writes the layout of diffusers, which has no place for it`);
  const dir = existingStage(run, "diffusion");
  const model = await loadModel(dir, console.error);
  check(run, as, kindOf(model));
  const device = await openDevice({ device: "reference" }); // weights never leave the host
  try {
    await exportModel(model, await loadTokenizer(join(dir, TOKENIZER_FILE)), out);
  } finally {
    device.close();
  }
  console.log(`${out}: ${kindOf(model)}`);
}

function check(run: string, asked: string | undefined, kind: string): void {
  if (asked !== undefined && asked !== kind)
    throw new Error(`${run} holds ${kind}, which cannot be written as ${asked}`);
}
