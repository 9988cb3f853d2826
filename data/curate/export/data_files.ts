// Where the splits of an export are, as the header of its card tells Hugging Face's reader: by itself that takes folders and files
// called train and test, and passes over all others without a word. What else the card says is ../card.ts.

import { readdir } from "node:fs/promises";

/** As rows.ts calls them; the first is the one whose columns a reader looks at. */
const SPLITS = ["train", "test", "held-out"];
/** A folder, or <split>-00000.parquet, or <split>-<kind>-000000.tar. */
const NAME = new RegExp(`^(${SPLITS.join("|")})(?:(?:-([a-z]+))?-\\d+\\.(parquet|tar))?$`);

/** The lines `configs: ...` of YAML for the export in `out`; of WebDataset's shards those of a kind of file are a set. */
export async function dataFiles(out: string): Promise<string> {
  const sets = new Map<string, Map<string, string>>();
  for (const entry of (await readdir(out)).sort()) {
    const [, split, kind, extension] = NAME.exec(entry) ?? [];
    if (split === undefined) continue;
    const files = sets.get(kind ?? "default") ?? new Map<string, string>();
    sets.set(kind ?? "default", files);
    files.set(split, extension ? `${split}${kind ? `-${kind}` : ""}-*.${extension}` : `${split}/**`);
  }
  const lines = ["configs:"];
  for (const [set, files] of [...sets].sort()) {
    lines.push(`- config_name: ${set}`, "  data_files:");
    // Names of splits are words there.
    for (const split of SPLITS.filter((name) => files.has(name)))
      lines.push(`  - split: ${split.replaceAll("-", "_")}`, `    path: "${files.get(split)}"`);
  }
  return lines.join("\n");
}
