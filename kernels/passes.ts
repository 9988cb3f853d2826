// Convolutions that are a product of matrices between passes of their own (winograd.ts, conv_few.ts): the list of
// passes and scratch buffers while it grows. Called by those two.

import { matmul } from "./matmul.ts";
import type { MatmulSpec, StridedOperand } from "./matmul_spec.ts";
import { type Caps, choose, type Field, foldGrid, type Pass, uniforms } from "./wgsl.ts";

/** A row-major matrix, or as many as the product has, one behind the other. */
export const rows = (count: number, length: number): StridedOperand => ({
  offset: 0,
  batch: [count * length, 0],
  row: length,
  col: 1,
});

/** Start of a kernel with one thread per `count`, as `Passes.add` dispatches it: `at` is the thread's number. */
export const MAIN = `@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (wg.y * grid.x + wg.x) * 64u + lane;
  if (at >= u.count) { return; }`;

/** Passes under construction: operands below `first` are the kernel's own, those from there on scratch. */
export class Passes {
  readonly passes: Pass[] = [];
  readonly scratch: number[] = [];
  readonly #first: number;
  readonly #caps: Caps;

  constructor(first: number, caps: Caps) {
    this.#first = first;
    this.#caps = caps;
  }
  buffer(elements: number): number {
    return this.#first + this.scratch.push(elements) - 1;
  }
  /** One thread per `count`, which is a field of the uniforms, with `each` operations. */
  add(
    label: string,
    count: number,
    each: number,
    operands: readonly number[],
    fields: readonly Field[],
    text: (u: string) => string,
  ): void {
    const u = uniforms(operands.length, [["count", "u32", count], ...fields]);
    const workgroups = foldGrid(Math.ceil(count / 64), this.#caps);
    const source = { label, wgsl: text(u.wgsl), workgroups, uniforms: u.words, flops: count * each };
    this.passes.push({ source, operands });
  }
  /** y = a b. */
  product(s: MatmulSpec, a: number, b: number, y: number): void {
    const { passes, scratch } = choose(matmul, s, this.#caps).emit(s, this.#caps);
    const own = scratch.map((elements) => this.buffer(elements));
    const place = (i: number): number => (i < 3 ? [a, b, y][i] : own[i - 3]);
    for (const p of passes) this.passes.push({ ...p, operands: p.operands.map(place) });
  }
}
