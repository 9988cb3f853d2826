// What a build would do, and what its language models would cost, told from the sources and tables as they are: nothing is asked of
// the network, and nothing written. Called by cli/dataset.ts.

import type { Collection } from "./collection.ts";
import { dryRun, type Stage } from "./stage.ts";
import { NoTable } from "./tables.ts";

export interface Planned {
  readonly stage: string;
  /** Items to be done; where `bound`, at most so many, since tables that they are counted from have not been made. */
  readonly items: number;
  readonly bound: boolean;
  /** Searches that were not asked may bring more. */
  readonly more: boolean;
  /** What is to be said of it, and what would be asked. */
  readonly notes: readonly string[];
  /** By annotate.pricePerMillion; null where nothing costs anything. */
  readonly cost: number | null;
}

/** The stages in the order in which a build runs them; the first is the one that brings stickers in. */
export async function planBuild(collection: Collection, stages: readonly Stage[]): Promise<Planned[]> {
  const planned: Planned[] = [];
  for (const stage of stages) {
    const known = await dryRun(collection, stage).catch((error: unknown) => {
      if (error instanceof NoTable) return null;
      throw error;
    });
    const more = planned[0]?.more ?? (known?.unasked.length ?? 0) > 0;
    if (known) {
      const { items, cost } = known;
      const notes = [...known.notes, ...known.unasked];
      planned.push({ stage: stage.name, items, bound: false, more, cost, notes });
    } else {
      const { items } = planned[0];
      const each = stage.cost?.({ key: "" }, collection.config);
      const cost = each === undefined ? null : each * items;
      planned.push({ stage: stage.name, items, bound: true, more, cost, notes: [] });
    }
  }
  return planned;
}
