// Domain: whether a sticker is drawn or photographed, where its source does not say. The network is not of this folder: who runs
// the stage brings it (train/domain.ts), and annotate.domainModel says which weights.

import { readFile } from "node:fs/promises";
import type { Domain } from "../../record.ts";
import type { CurateConfig } from "../config.ts";
import { knownDomain } from "../derived.ts";
import { type Item, NONE, queried, type Stage } from "../stage.ts";
import { table } from "../tables.ts";

export interface DomainVerdict {
  readonly domain: Domain;
  /** Probability that the model gives it, from 0.5 to 1. */
  readonly score: number;
}

export interface DomainClassifier {
  /** @throws DecodeError for a file that cannot be decoded */
  classify(bytes: Uint8Array, where: string): Promise<DomainVerdict>;
  close(): void;
}

/** Trained classifiers, by their folder. */
export interface DomainClassifiers {
  /** Changes with the weights; is what the table calls the model. @throws Error when there is none */
  identity(folder: string): string;
  open(folder: string): Promise<DomainClassifier>;
}

interface File extends Item {
  readonly format: string;
}

interface Row {
  readonly domain: Domain | null;
  readonly score: number | null;
  readonly model: string;
  readonly error: string | null;
}

export function domainStage(classifiers: DomainClassifiers): Stage<File, Row> {
  const modelOf = ({ annotate: { domainModel } }: CurateConfig): string | null =>
    domainModel === undefined ? null : classifiers.identity(domainModel);
  return {
    name: "domain",
    about: "tell drawn stickers from photographed ones",
    version: 1,
    columns: { domain: "VARCHAR", score: "DOUBLE", model: "VARCHAR", error: "VARCHAR" },
    settings: modelOf,
    parallel: () => 2, // one is decoded while the other is with the network
    items: async (collection, db) => {
      if (collection.config.annotate.domainModel === undefined) return NONE;
      const sql = `SELECT c.id AS "key", min(c.format) AS format FROM ${table(collection, "collect")} c
        JOIN ${table(collection, "filter")} f ON f.id = c.id AND f.kept
        GROUP BY c.id HAVING count(*) FILTER (${knownDomain("c.domain")}) = 0`; // what a source says need not be guessed
      return queried(db, sql);
    },
    open: async (collection) => {
      const { config, dir } = collection;
      const classifier = await classifiers.open(config.annotate.domainModel ?? dir);
      const model = modelOf(config) ?? "";
      return {
        run: async ({ key, format }) => {
          try {
            const verdict = await classifier.classify(await readFile(collection.mediaPath(key, format)), key);
            return { ...verdict, model, error: null };
          } catch (error) {
            return { domain: null, score: null, model, error: (error as Error).message };
          }
        },
        close: async () => classifier.close(),
      };
    },
  };
}
