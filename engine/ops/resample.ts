// A constant band matrix applied along one axis of [outer, n, inner]: what averages over windows and interpolation are.
// Linear, and its gradient is the transposed band. Which bands there are is nn's business (nn/along.ts).

import { type BandSpec, drawBand, resample as family, fitsTable } from "../../kernels/resample.ts";
import { ShapeError, show } from "../error.ts";
import { type Attrs, defineOp, familyReference, floats, type KernelLowering } from "./op.ts";

/** What one row reads and how much it counts; weights of the same column add up. */
export type Row = readonly (readonly [column: number, weight: number])[];

/** A matrix [rows, columns] whose rows hold a few neighbouring weights. `key` tells it from every other one. */
export class Band implements BandSpec {
  readonly key: string;
  readonly rows: number;
  readonly columns: number;
  readonly starts: readonly number[];
  readonly weights: readonly (readonly number[])[];
  #transposed: Band | undefined;

  constructor(key: string, columns: number, rows: readonly Row[]) {
    this.key = key;
    this.rows = rows.length;
    this.columns = columns;
    this.starts = rows.map((row) => (row.length === 0 ? 0 : Math.min(...row.map(([j]) => j))));
    this.weights = rows.map((row, i) => {
      const end = row.reduce((most, [j]) => Math.max(most, j + 1), this.starts[i]);
      const weights = new Array<number>(end - this.starts[i]).fill(0);
      for (const [j, weight] of row) weights[j - this.starts[i]] += weight;
      return weights;
    });
  }

  get transposed(): Band {
    this.#transposed ??= this.#transpose();
    return this.#transposed;
  }

  #transpose(): Band {
    const rows: (readonly [number, number])[][] = Array.from({ length: this.columns }, () => []);
    this.weights.forEach((row, i) => {
      row.forEach((weight, k) => {
        if (weight !== 0) rows[this.starts[i] + k].push([i, weight]);
      });
    });
    const band = new Band(`transposed ${this.key}`, this.rows, rows);
    band.#transposed = this;
    return band;
  }

  /** Whether the kernel takes it and its gradient. */
  get fits(): boolean {
    return fitsTable(this) && fitsTable(this.transposed);
  }

  /** What distinguishes a node that has this attribute. */
  toJSON(): string {
    return this.key;
  }
}

export interface ResampleAttrs extends Attrs {
  readonly band: Band;
}

const lower: KernelLowering<ResampleAttrs> = {
  kind: "kernel",
  family,
  spec: ([x], { band: { rows, columns, starts, weights } }) => ({
    outer: x[0],
    inner: x[2],
    rows,
    columns,
    starts,
    weights,
  }),
};

let drawn = 0;

/** x [outer, columns, inner] -> [outer, rows, inner]. */
export const resample = defineOp<ResampleAttrs>({
  name: "resample",
  dtype: floats("resample"),
  shape: ([x], { band }) => {
    if (x.length !== 3 || x[1] !== band.columns)
      throw new ShapeError(`resample: expected "outer ${band.columns} inner", got ${show(x)}`);
    return [x[0], band.rows, x[2]];
  },
  reference: familyReference(lower),
  vjp: (g, _, __, { band }) => [g.resample(band.transposed)],
  lower,
  draw: (d) => {
    const { columns, starts, weights } = drawBand({
      ...d,
      pick: (choices) => choices[d.int(0, Math.min(2, choices.length - 1))],
    });
    const rows = weights.map((row, i) => row.map((weight, k) => [starts[i] + k, weight] as const));
    const shape = [d.int(1, 2), columns, d.pick([1, 3, 4])];
    return { inputs: [{ shape }], attrs: { band: new Band(`drawn ${drawn++}`, columns, rows) } };
  },
  rtol: 1e-6,
  why: "a handful of products, and weights that are rounded once",
  sums: true,
});
