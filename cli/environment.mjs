// What every process that opens the GPU needs from its environment, and where the checkout is. Plain JavaScript without
// dependencies: bootstrap.mjs uses it before node_modules exists. Called by bootstrap.mjs, gifgrad.mjs and their children.

import { chmodSync, mkdirSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** True in a copy that npm installed into somebody's node_modules: its dist is final and its folder not ours to write. */
export const installed = root.includes(`${sep}node_modules${sep}`);

/**
 * Sets what Mesa reads from the environment, where the user has not. Must run before Dawn loads the Vulkan driver.
 * Lavapipe spends seconds per run compiling shaders, so its cache stays in the checkout, where CI can keep it.
 */
export function prepareEnvironment() {
  if (installed) return;
  useFolder("MESA_SHADER_CACHE_DIR", "mesa", 0o755);
  useFolder("XDG_RUNTIME_DIR", "runtime", 0o700); // unset, the Vulkan loader and lavapipe warn
}

function useFolder(variable, name, mode) {
  if (process.env[variable]) return;
  const path = join(root, ".cache", name);
  try {
    mkdirSync(path, { recursive: true });
    chmodSync(path, mode);
    process.env[variable] = path;
  } catch {
    // A checkout that cannot be written: Mesa falls back to the home folder by itself.
  }
}
