// What a run is done with: versions and, in a git checkout, the commit. Recorded in run.json by run.ts.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export interface Environment {
  readonly versions: { readonly gifgrad: string; readonly node: string; readonly webgpu: string };
  /** Null outside a git checkout of Gifgrad, or without git. `dirty`: tracked files differ from the commit. */
  readonly git: { readonly commit: string; readonly dirty: boolean } | null;
}

export function environment(): Environment {
  const root = packageRoot(dirname(fileURLToPath(import.meta.url)));
  const webgpu = createRequire(import.meta.url).resolve("webgpu/package.json");
  const versions = {
    gifgrad: version(join(root, "package.json")),
    node: process.versions.node,
    webgpu: version(webgpu),
  };
  // Without a .git of its own, git would answer for whatever checkout is above.
  return { versions, git: existsSync(join(root, ".git")) ? gitState(root) : null };
}

/** The nearest folder above with a package.json: from the sources and from the build alike that is Gifgrad's own. */
function packageRoot(folder: string): string {
  if (existsSync(join(folder, "package.json"))) return folder;
  if (folder === dirname(folder))
    throw new Error("no package.json above the sources: run from a complete Gifgrad checkout");
  return packageRoot(dirname(folder));
}

function version(packageFile: string): string {
  return (JSON.parse(readFileSync(packageFile, "utf8")) as { version: string }).version;
}

function gitState(root: string): Environment["git"] {
  const git = (...args: string[]) =>
    execFileSync("git", ["-C", root, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    return { commit: git("rev-parse", "HEAD"), dirty: git("status", "--porcelain", "--untracked-files=no") !== "" };
  } catch {
    return null;
  }
}
