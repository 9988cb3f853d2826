// Runs a golden folder through the project's own runner, for tests: how many tensors it held, and a line for each that failed.

import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSafetensors, writeSafetensors } from "../engine/safetensors.ts";
import { golden } from "../eval/golden/index.ts";

export async function goldenFailures(path: string): Promise<{ count: number; failed: string[] }> {
  const failed: string[] = [];
  let count = 0;
  for await (const event of golden(path)) {
    if (event.type === "problem") failed.push(`${event.folder}: ${event.message}`);
    if (event.type !== "check") continue;
    const { name, ok, error, bound, message } = event.check;
    count++;
    if (!ok) failed.push(`${name}: ${message ?? `error ${error}, bound ${bound}`}`);
  }
  return { count, failed };
}

/**
 * The failures of a network's folder whose only expectations are outputs: without gradients and other files, what a planted
 * bug needs to be seen, at a tenth of the time. Names of tensors.
 */
export async function outputFailures(path: string): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "gifgrad-outputs-"));
  const io = await openSafetensors(join(path, "io.safetensors"));
  try {
    for (const file of ["config.json", "tolerance.json", "weights.safetensors"])
      await symlink(join(path, file), join(folder, file));
    const kept = [...io.tensors].filter(([name]) => /^(in|out)\./.test(name));
    const copies = kept.map(([name, info]) => [name, { ...info, pieces: () => io.pieces(name) }] as const);
    await writeSafetensors(join(folder, "io.safetensors"), new Map(copies));
    return (await goldenFailures(folder)).failed.map((line) => line.split(":")[0]);
  } finally {
    await io.close();
    await rm(folder, { recursive: true });
  }
}

/** A copy of a folder in which files are changed: JSON by name, as values. The caller removes it. */
export async function changedCopy(
  path: string,
  changes: Readonly<Record<string, (json: never) => unknown>>,
): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), "gifgrad-golden-"));
  for (const name of await readdir(path)) {
    const change = changes[name];
    if (!change) await symlink(join(path, name), join(copy, name));
    else {
      const json = JSON.parse(await readFile(join(path, name), "utf8"));
      await writeFile(join(copy, name), JSON.stringify(change(json as never)));
    }
  }
  return copy;
}
