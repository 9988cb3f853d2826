// Measure: every collected file is decoded once, in processes of their own, and described in numbers (measure.ts). A file that
// cannot be decoded gets a row with the reason; filter rejects it.

import { cpus } from "node:os";
import type { Measures } from "../measure.ts";
import { Pool } from "../pool.ts";
import { type Item, queried, type Stage } from "../stage.ts";
import { table } from "../tables.ts";

interface File extends Item {
  readonly format: string;
}

type Row = { readonly [K in keyof Measures]: Measures[K] | null } & { readonly error: string | null };

const NOTHING = {
  width: null,
  height: null,
  frames: null,
  duration_ms: null,
  has_alpha: null,
  aspect: null,
  entropy: null,
  motion: null,
  phash: null,
};

export const processes = (asked: number): number => asked || cpus().length;

export const measureStage: Stage<File, Row> = {
  name: "measure",
  about: "decode every file: size, frames, entropy, motion, perceptual hash",
  version: 2,
  columns: {
    width: "INTEGER",
    height: "INTEGER",
    frames: "INTEGER",
    duration_ms: "DOUBLE",
    has_alpha: "BOOLEAN",
    aspect: "DOUBLE",
    entropy: "DOUBLE",
    motion: "DOUBLE",
    phash: "VARCHAR",
    error: "VARCHAR",
  },
  settings: () => null,
  parallel: (config) => 2 * processes(config.processes),
  items: (collection, db) =>
    queried(db, `SELECT DISTINCT id AS "key", format FROM ${table(collection, "collect")} WHERE id IS NOT NULL`),
  open: async (collection) => {
    const pool = new Pool({ processes: processes(collection.config.processes) });
    return {
      run: ({ key, format }) =>
        pool.run<Measures>({ task: "measure", path: collection.mediaPath(key, format) }).then(
          (measures) => ({ ...measures, error: null }),
          (error: Error) => ({ ...NOTHING, error: error.message }),
        ),
      close: () => pool.close(),
    };
  },
};
