// Methods that read and write at positions which are values themselves, and others that layers and generators are made of:
// rows of a table, the windows of pooling, resampling along an axis, random numbers. The op records are in ops/gather.ts,
// pool.ts, resample.ts and random.ts.

import * as gathers from "../ops/gather.ts";
import * as pools from "../ops/pool.ts";
import { type RandomAttrs, random as randomOp } from "../ops/random.ts";
import { type Band, resample as resampleOp } from "../ops/resample.ts";
import { Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { stored } from "./leaves.ts";
import { Product } from "./product.ts";

/** Results of `arange` by length, those asked for last: equal ones are one tensor, so that expressions of them are one too. */
const ranges = new Map<number, Tensor>();
const RANGES = 64;

export abstract class Lookup extends Product {
  /** i32 [n] = 0, 1, ..., n - 1. A method, so that op records can make one without importing tensor.ts. */
  arange(n: number): Tensor {
    const numbers = (): Int32Array => Int32Array.from({ length: n }, (_, i) => i);
    const known = ranges.get(n) ?? this.of(stored(new Storage([n], "i32", numbers())));
    ranges.delete(n);
    ranges.set(n, known);
    for (const length of ranges.keys()) if (ranges.size > RANGES) ranges.delete(length);
    return known;
  }
  /** Rows of a table [n, d] by an i32 index of any shape: [...index, d]. Indices outside the table are clamped. */
  gatherRows(index: Tensor): Tensor {
    return this.apply(gathers.gatherRows, [this, index.reshape([-1])]).reshape([...index.shape, this.shape[1]]);
  }
  /** this = gradient of gathered rows [m, d], index [m] -> [rows, d]: each row the sum of what was read of it. */
  gatherRowsGrad(index: Tensor, rows: number): Tensor {
    return this.apply(gathers.gatherRowsGrad, [this, index], { rows });
  }
  /** For nn/along.ts: this = [outer, columns, inner] -> [outer, rows, inner]. */
  resample(band: Band): Tensor {
    return this.apply(resampleOp, [this], { band });
  }
  /** For nn/pooling.ts: this = [b, d, h, w, c]; the tap of each window where it is largest. */
  maxPoolTap(attrs: pools.WindowAttrs): Tensor {
    return this.apply(pools.maxPoolTap, [this], attrs);
  }
  /** The elements of x = [b, d, h, w, c] at the taps of maxPoolTap: its pooled values, and their gradient's gradient. */
  poolTake(taps: Tensor, attrs: pools.WindowAttrs): Tensor {
    return this.apply(pools.poolTake, [this, taps], attrs);
  }
  /** The gradient of poolTake: this = one value per window, added where its tap lies. */
  poolSpread(taps: Tensor, attrs: pools.SpreadAttrs): Tensor {
    return this.apply(pools.poolSpread, [this, taps], attrs);
  }
  /** For Rng (state.ts): this = generator state u32[4]; `table` has the normal quantiles where attrs ask for normals. */
  random(attrs: RandomAttrs, ...table: Tensor[]): Tensor {
    return this.apply(randomOp, [this, ...table], attrs);
  }
}
