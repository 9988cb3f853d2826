// Golden data: arrays that other implementations computed, in folders beside the checkout. Running them is eval/golden.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, test } from "vitest";

const root = fileURLToPath(new URL("../../shared/golden/", import.meta.url));

/** A group of tests on one folder of golden data, given its path; skipped by name where the folder is absent. */
export function describeFolder(folder: string, body: (path: string) => void): void {
  if (existsSync(`${root}${folder}`)) describe(`golden ${folder}`, () => body(`${root}${folder}`));
  else test.skip(`golden ${folder}: ../shared/golden/${folder} is absent`, () => {});
}
