// `gifgrad starter`: writes the starter set with a progress line. The stickers are made in data/starter.

import { writeStarter } from "../data/starter/index.ts";
import { progress } from "../train/progress.ts";
import type { StarterOptions } from "./options.ts";

export async function run({ out, count, size, seed }: StarterOptions): Promise<void> {
  const line = progress("starter", count);
  await writeStarter(out, { count, size, seed, onProgress: (done: number) => line.update(done) });
  line.done(`stickers in ${out}`);
}
