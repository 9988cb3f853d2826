// `gifgrad import` and `gifgrad export`: checkpoints of other programs into a folder of ours, and back. Both copy tensor by
// tensor and open no device.

import { exportImported } from "../train/foreign/export.ts";
import { importCheckpoint } from "../train/foreign/import.ts";
import { readRecord } from "../train/foreign/record.ts";
import type { ExportOptions, ImportOptions } from "./options.ts";

export async function runImport({ path, as, out, variant, config }: ImportOptions): Promise<void> {
  const onPart = (name: string, tensors: number): void => console.error(`${name}: ${tensors} tensors`);
  const record = await importCheckpoint(path, as, out, { variant, config, onPart });
  console.log(`${out}: ${as} with ${Object.keys(record.parts).join(", ")}`);
}

export async function runExport({ run, as, out }: ExportOptions): Promise<void> {
  const record = await readRecord(run);
  if (as !== undefined && as !== record.as)
    throw new Error(`${run} holds ${record.as}, which cannot be written as ${as}`);
  await exportImported(run, out);
  console.log(`${out}: ${record.as} with ${Object.keys(record.parts).join(", ")}`);
}
