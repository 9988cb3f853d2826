// Where what is said of a sticker comes from: for each field the stage, the tool or model, its version, and when. Times are in the
// journals and not in the tables, so that the same data set made again has the same bytes.

import type { Collection } from "./collection.ts";
import { entries, journals } from "./journal.ts";
import type { Stage } from "./stage.ts";
import { table, text, withDatabase } from "./tables.ts";

export interface Origin {
  readonly stage: string;
  readonly version: number;
  /** The source for collect, a model for annotators, "gifgrad" for what is measured. */
  readonly tool: string;
  readonly at: string;
  readonly row: Readonly<Record<string, unknown>>;
}

/** Every row that was made about sticker `id`, in the order of the stages. @throws Error for an id that is not there */
export async function history(collection: Collection, id: string, stages: readonly Stage[]): Promise<Origin[]> {
  const collected = await withDatabase((db) =>
    db.all(`SELECT "key" FROM ${table(collection, "collect")} WHERE id = ${text(id)}`),
  );
  if (collected.length === 0) throw new Error(`${collection.dir} has no sticker ${id}`);
  const keys = new Set([id, ...collected.map(({ key }) => String(key))]);
  const found: Origin[] = [];
  for (const { name, version } of stages) {
    const latest = new Map<string, Origin>();
    for (const path of await journals(collection.journalDir(name))) {
      for await (const { key, at, row } of entries<Record<string, unknown>>(path)) {
        if (!keys.has(key) || (latest.get(key)?.at ?? "") > at) continue;
        latest.set(key, { stage: name, version, tool: String(row.model ?? row.source ?? "gifgrad"), at, row });
      }
    }
    found.push(...latest.values());
  }
  return found;
}
