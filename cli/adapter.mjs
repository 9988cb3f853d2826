// Prints the WebGPU adapter that Dawn offers as one line of JSON: {name, software} or {error}. A program of its own,
// because a broken driver can take the process down or hang it, and because Dawn's warnings belong to nobody's output.
// Run by bootstrap.mjs, before anything is built; the engine opens its device in engine/runtime/dawn.ts.

import { writeSync } from "node:fs";

const software = /llvmpipe|lavapipe|swiftshader|software|basic render/i;

async function find() {
  const { create } = await import("webgpu");
  const gpu = create([]);
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return { error: "Dawn loads, but finds no Vulkan, Metal or Direct3D 12 driver" };
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed adapter";
  return { name, software: isFallbackAdapter === true || software.test(`${name} ${architecture} ${device}`) };
}

let found;
try {
  found = await find();
} catch (error) {
  found = { error: String(error?.message ?? error).split("\n")[0] };
}
writeSync(1, `${JSON.stringify(found)}\n`);
process.exit(0); // Dawn's own threads would keep Node alive
