// What a benchmark leaves behind: benchmark.json, as types. Plain data, so that tables and pages can be made again from the
// file alone. cli/benchmark.ts fills it in; tables.ts puts it in the paper's layout; markdown.ts and report.ts show those.

import type { Environment } from "../../train/environment.ts";
import type { Metric, Score } from "../score.ts";

/** Real stickers and cartoons, as the paper calls its test sets. */
export const TEST_NAMES = ["VSD-R", "VSD-C"] as const;
export type TestName = (typeof TEST_NAMES)[number];

/** Where a cell belongs: Tables 4, 7 and 5, and Figure 6. */
export type Part = "separate" | "joint" | "trainingSets" | "curves";

export interface BenchmarkResult {
  readonly format: 1;
  readonly title: string;
  /** As it was read, defaults filled in. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly environment: Environment;
  readonly adapter: { readonly name: string; readonly kind: string };
  /** ISO dates of the first session's begin and of this writing, and the seconds that all sessions worked. */
  readonly began: string;
  readonly written: string;
  readonly seconds: number;
  /** Whether every cell is done or has failed; a file that was written on the way, or after Ctrl-C, has false. */
  readonly complete: boolean;
  readonly preset: string;
  /** Pixels a side, and frames. */
  readonly size: number;
  readonly frames: number;
  readonly seed: number;
  /** In words: "DDIM, 10 steps, guidance 2; VideoGPT: code by code". */
  readonly sampling: string;
  /** Whether scores are by the published networks; else their names end in -x. */
  readonly published: boolean;
  /** For each metric that was asked for and cannot be computed, why. */
  readonly missing: Readonly<Partial<Record<Metric, string>>>;
  /** In the order of the paper's tables. */
  readonly systems: readonly BenchmarkSystem[];
  readonly trainings: readonly TrainingResult[];
  readonly tests: readonly TestSet[];
  readonly cells: readonly Cell[];
  readonly gallery: readonly GalleryRow[];
}

export interface BenchmarkSystem {
  /** "sti" */
  readonly name: string;
  /** "Ours (STI)" */
  readonly title: string;
  /** What it is told; VideoGPT has tags in the place of captions, and as in the paper no CLIP similarity. */
  readonly conditions: string;
  /** Null where it was not asked for, or not measured yet. */
  readonly cost: SystemCost | null;
  /** Why there is no cost, where measuring it failed. */
  readonly costFailed?: string;
}

/** What one sticker takes. Measured by eval/cost.ts. */
export interface SystemCost {
  /** All that is loaded, as the paper counts, and by component. */
  readonly parameters: { readonly total: number; readonly components: Readonly<Record<string, number>> };
  /** Seconds of one sticker, the first runs left out. */
  readonly time: {
    readonly runs: number;
    readonly mean: number;
    readonly median: number;
    readonly p5: number;
    readonly p95: number;
  };
  /** Bytes on the device: as planned, and as measured where that is known. */
  readonly memory: { readonly planned: number; readonly measured: number | null };
  readonly flops: number;
  readonly dispatches: number;
}

/** One system trained on one set; cells refer to it by `id`. */
export interface TrainingResult {
  /** "joint/sti"; that of the autoencoder, which the diffusion systems of a set share, "joint/autoencoder". */
  readonly id: string;
  readonly system: string;
  /** Name of the training set: "real", "cartoon", "joint", or that of Table 5. */
  readonly set: string;
  /** Null of a run that was taken. */
  readonly stickers: number | null;
  readonly state: "done" | "failed" | "pending";
  readonly reason?: string;
  /** The run folder, from the benchmark's own where it lies in it. */
  readonly run: string;
  /** Whether it was trained elsewhere and only taken. */
  readonly taken: boolean;
  readonly stages: readonly {
    readonly recipe: string;
    readonly steps: number;
    readonly seconds: number;
    readonly firstLoss: number;
    readonly lastLoss: number;
    /** Loss of predicting the mean. */
    readonly baseline: number;
  }[];
}

export interface TestSet {
  readonly name: TestName;
  readonly domain: "Real" | "Cartoon";
  readonly stickers: number;
  /** Of the decoded stickers. */
  readonly sha256: string;
}

/** One system, trained on one set, for some steps, on one test set: a place in a table, or a point of a curve. */
export interface Cell {
  /** "separate/sti/real/VSD-R", "curves/sti/joint/VSD-C/40": unique in a result. */
  readonly id: string;
  readonly part: Part;
  readonly system: string;
  /** Name of the training set. */
  readonly set: string;
  readonly test: TestName;
  /** Optimiser steps of the last stage where it is not all of them: Figure 6. */
  readonly steps: number | null;
  readonly state: "done" | "failed" | "pending";
  /** One line, of a cell that failed. */
  readonly reason?: string;
  /** By metric; those that the system lacks, or that could not be computed, are absent. */
  readonly scores: Readonly<Partial<Record<Metric, Score>>>;
  /** One line for each metric that failed, of a cell that is done: its stickers and other scores are there. */
  readonly failed?: Readonly<Partial<Record<Metric, string>>>;
  /** Folder of its GIFs, from the benchmark's own; with a metadata.jsonl, so that `gifgrad eval` takes it. */
  readonly samples: string | null;
  readonly seconds: { readonly sampling: number; readonly scoring: number } | null;
}

/** A caption and what the systems made of it, reference first. Paths of GIFs count from the benchmark's folder. */
export interface GalleryRow {
  readonly test: TestName;
  /** The description; hostile text, like all captions. */
  readonly caption: string;
  readonly reference: string;
  readonly stickers: readonly {
    /** The system's name, and the set that it was trained on. */
    readonly system: string;
    readonly set: string;
    /** Null where there is none. */
    readonly gif: string | null;
  }[];
}

// ---- the tables of the paper, as tables.ts lays them out of a result

export interface Table {
  /** "Table 4" */
  readonly name: string;
  readonly title: string;
  /** Over the names of the rows. */
  readonly corner: string;
  readonly groups: readonly ColumnGroup[];
  readonly rows: readonly { readonly title: string; readonly cells: readonly TableCell[] }[];
  /** Sentences below it: protocol, what is not comparable and why, what the paper's numbers are. */
  readonly notes: readonly string[];
}

export interface ColumnGroup {
  /** "VSD-R"; empty over columns that stand alone. */
  readonly title: string;
  readonly columns: readonly { readonly title: string; readonly better: "lower" | "higher" | null }[];
}

/** A row has one for each column of all groups, in order. */
export type TableCell =
  | {
      readonly kind: "value";
      /** Rounded, as the tables print it. */
      readonly text: string;
      readonly value: number;
      /** 1: best of its column, 2: second best; several share a place where they print alike. Null: neither, or not ranked. */
      readonly place: 1 | 2 | null;
      /** For metrics: interval, floor, protocol. */
      readonly score: Score | null;
      readonly paper: PaperNumber | null;
    }
  /** Words: the publication of Table 6. */
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "failed"; readonly reason: string }
  /** The system or the table has no such number; the paper prints a dash. */
  | { readonly kind: "none"; readonly why: string; readonly paper: PaperNumber | null }
  | { readonly kind: "pending" };

/** What the paper has in the same place. */
export interface PaperNumber {
  /** Null where ours is a number of another kind (FVD-x beside FVD): only the order can be compared then. */
  readonly text: string | null;
  /** Its place in the paper's column, 1 is best, and of how many. */
  readonly place: number;
  readonly of: number;
}

/** A line of Figure 6: one metric of one system on one test set against training steps. */
export interface ScoreCurve {
  readonly system: string;
  readonly set: string;
  readonly test: TestName;
  readonly metric: Metric;
  /** By ascending steps. */
  readonly points: readonly { readonly steps: number; readonly score: Score }[];
}
