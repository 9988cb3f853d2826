// What language models have cost a data set: a journal per process (key = model, row = { cost }), read on by all of them as they go,
// so that a budget is that of the whole data set, whatever runs at the same time on this disk. Called by chat.ts.

import { randomBytes } from "node:crypto";
import { endOfLines, entries, type Journal, journals, openJournal } from "./journal.ts";

interface Cost {
  readonly cost: number;
}

export class Ledger {
  readonly #dir: string;
  /** Of this process, opened by its first payment. */
  #book: Promise<Journal<Cost>> | undefined;
  /** Of each journal, the bytes that are in `#sum`. */
  readonly #read = new Map<string, number>();
  #sum = 0;
  #turn: Promise<unknown> = Promise.resolve();

  /** Close it. */
  constructor(dir: string) {
    this.#dir = dir;
  }

  async close(): Promise<void> {
    (await this.#book)?.close();
  }

  /** What all runs have spent until now, those of other processes and this one included. */
  spent(): Promise<number> {
    const sum = this.#turn.then(() => this.#readOn());
    this.#turn = sum.catch(() => undefined); // one after another: a line counts once
    return sum;
  }

  async #readOn(): Promise<number> {
    for (const path of await journals(this.#dir)) {
      const [from, to] = [this.#read.get(path) ?? 0, await endOfLines(path)];
      if (to === from) continue;
      for await (const { row } of entries<Cost>(path, from, to)) this.#sum += row.cost;
      this.#read.set(path, to);
    }
    return this.#sum;
  }

  async pay(model: string, cost: number): Promise<void> {
    if (cost === 0) return;
    this.#book ??= openJournal<Cost>(this.#dir, randomBytes(4).toString("hex"));
    (await this.#book).append(model, "", { cost });
  }
}
