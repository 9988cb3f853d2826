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

/**
 * Every row that was made about the sticker whose id begins with `start`, in the order of the stages.
 * @throws Error when there is none, or more than one
 */
export async function history(collection: Collection, start: string, stages: readonly Stage[]): Promise<Origin[]> {
  const collected = await withDatabase((db) =>
    db.all(`SELECT id, "key" FROM ${table(collection, "collect")} WHERE starts_with(id, ${text(start)}) ORDER BY id`),
  );
  const ids = [...new Set(collected.map(({ id }) => String(id)))];
  if (ids.length === 0) throw new Error(`${collection.dir} has no sticker ${start}`);
  if (ids.length > 1) {
    const some = `${ids.slice(0, 3).join(", ")}${ids.length > 3 ? ", ..." : ""}`;
    throw new Error(`${start} is the beginning of ${ids.length} stickers: ${some}`);
  }
  const keys = new Set([ids[0], ...collected.map(({ key }) => String(key))]);
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
