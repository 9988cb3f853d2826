#!/usr/bin/env node
// The `gifgrad` command. Brings dist up to date with the sources when this is a clone, then hands over to cli/main.ts,
// which knows the commands. Also imported by bootstrap.mjs, so that `npm start` is the same as `npx gifgrad start`.

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build, dist, stale } from "./build.mjs";
import { installed, prepareEnvironment, root } from "./environment.mjs";

function fail(message) {
  console.error(`gifgrad: ${message}`);
  process.exit(1);
}

function resolves(name) {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    return false;
  }
}

if (!resolves("commander")) fail(`its packages are not installed: run "npm start" or "npm ci" in ${root}`);
prepareEnvironment();
if (!installed && stale()) {
  await build().catch((error) => fail(`the sources do not build: ${error.message}`));
}
if (process.env.DEBUG?.split(",").includes("stack")) process.setSourceMapsEnabled(true);
const { main } = await import(pathToFileURL(join(dist, "main.js")).href);
await main(process.argv);
