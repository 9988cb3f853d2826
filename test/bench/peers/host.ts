// WebGPU for frameworks that were written for browsers: puts `navigator.gpu` and what else they ask for where they look.
// Must have run before such a framework is imported. Loaded by the frameworks beside it.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { create, globals } from "webgpu";

/** Dawn lives as long as this object. */
const gpu: GPU = create([]);

Object.assign(globalThis, globals);
Object.defineProperty(globalThis, "navigator", {
  value: { gpu, userAgent: "Node.js", hardwareConcurrency: availableParallelism() },
  configurable: true,
});

/** What the peers run on, in the same words for all. */
export async function adapterName(): Promise<string> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  return adapter?.info.description || adapter?.info.device || "unknown";
}

/** The version of an installed package. */
export function versionOf(name: string): string {
  let folder = dirname(createRequire(import.meta.url).resolve(name));
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return (JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string }).version;
}
