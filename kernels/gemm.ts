// What matmul and convolution have in common: C[row, col] = sum over k of A[row, k] * B[k, col], where A and B are
// hidden behind WGSL address functions. Here: the description of such a product, its uniforms, the order of workgroups,
// the store, and the two small helper passes (relayout of an operand, sum of the parts of a split k). The inner loops
// are in gemm_tiles.ts; the address functions in matmul.ts and conv.ts, the only callers.

import type { Triangle } from "./matmul_spec.ts";
import {
  type Caps,
  type Epilogue,
  foldGrid,
  type KernelSource,
  type Lowered,
  type Pass,
  type Scalar,
  storage,
  uniforms,
  wgsl,
} from "./wgsl.ts";

/**
 * How one load of A looks: "k4" is a vec4 along k (row-major A), "m4" a vec4 along the rows (A stored transposed),
 * "any" one scalar. A gather costs a software adapter 4 to 25 ns, whatever it fetches: vec4 ones are the cheap ones.
 */
export type LoadA = "k4" | "m4" | "any";

/**
 * The same for B: "n4" is a vec4 along the columns (row-major B), "k4" one along k (B stored transposed, as the weights of
 * linear layers are), "any" four scalars.
 */
export type LoadB = "n4" | "k4" | "any";

export type Field = readonly [name: string, type: Scalar, value: number];

/** One product, or `batch` of them. Sizes reach the kernel as uniforms, so that one pipeline serves all shapes. */
export interface Gemm {
  /** Family and load modes. */
  readonly label: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  /**
   * Defines `a_row(batch, row) -> vec2<u32>` and `a_col(k) -> vec2<u32>`, the two halves of an address, each computed
   * once per tile or block, and `a_at(r, c) -> f32 or vec4<f32>`, the load. What it gives past m or k is not used.
   */
  readonly a: { readonly load: LoadA; readonly wgsl: string };
  /**
   * Defines `alias Column` and `b_column(batch, col) -> Column` for 4 columns from `col` on; then, unless the load is "k4",
   * `b_at(c, k) -> vec4<f32>`, one k of the 4 columns, else `b_along(c, j, k) -> vec4<f32>`, 4 k of column j.
   */
  readonly b: { readonly load: LoadB; readonly wgsl: string };
  /** Defines `y_row(row) -> u32` where rows are stored in another order; past `rowsOut` means: do not store. */
  readonly yRow?: { readonly wgsl: string; readonly rowsOut: number };
  /**
   * Only one half of A or of C counts: tiles leave out the blocks of k, or all k, of which nothing does, and elements of C in the
   * other half are stored as zeros. Elements of A in the other half, `a_at` gives as zeros.
   */
  readonly triangle?: Triangle;
  /** Most blocks of k are zero in A for most tiles: test for it. */
  readonly sparse?: boolean;
  /** A first pass that writes `table: array<vec4<u32>>`, for address functions that are too dear to compute in place. */
  readonly table?: { readonly elements: number; readonly source: KernelSource };
  readonly fields: readonly Field[];
  readonly epilogue?: Epilogue;
}

/** Rows and columns of C that one workgroup computes. */
export interface Tile {
  readonly rows: number;
  readonly cols: number;
}

/** The tiled part of a kernel, between the shared declarations and the shared store. */
export interface Generator extends Tile {
  readonly name: string;
  /** Tiles of one workgroup: 1, or one for each thread. */
  readonly perWorkgroup: number;
  /** Top of the shader: enables and diagnostics. */
  readonly directives: string;
  /**
   * Every product adds a bias, of zeros where there is none: products with and without one then share their text. For
   * tiles that take a second to compile.
   */
  readonly alwaysBias?: boolean;
  /** `bias`: adds `bias[column / 4]`, a binding of vec4s, to what it stores; only asked of tiles with `alwaysBias`. */
  main(gemm: Gemm, bias: boolean): string;
}

/** Widest store that C allows. */
export const widthOf = (n: number): 1 | 4 => (n % 4 === 0 ? 4 : 1);

/**
 * Parts into which k is cut. On a CPU so that the slice of B that all row tiles walk over stays in the cache (measured
 * 57 -> 45 ms on a 3x3 weight gradient); on a GPU so that a small result still fills the machine. The parts of a result
 * must stay small, since they are written and read once more.
 */
function splitsOf(g: Gemm, tile: Tile, caps: Caps): number {
  if (g.epilogue) return 1;
  const tiles = Math.ceil(g.m / tile.rows) * Math.ceil(g.n / tile.cols) * g.batch;
  if (caps.adapter === "cpu") {
    const splits = g.k < 2048 ? 1 : Math.min(16, Math.floor(g.k / 1024));
    return splits * g.batch * g.m * g.n > 2 ** 22 ? 1 : splits;
  }
  return Math.max(1, Math.min(64, Math.ceil(256 / tiles), Math.floor(g.k / 256)));
}

/** An operand that a first pass copies into scratch in another order, as [outer0, outer1, rows, cols]. */
export interface Relayout {
  readonly sizes: readonly [number, number, number, number];
  readonly offset: number;
  readonly strides: readonly [number, number, number, number];
}

/** All passes of one product: relayout of B when asked for, the tiles, and the sum of the parts when k is split. */
export function lowerGemm(g: Gemm, generator: Generator, caps: Caps, relayoutB?: Relayout): Lowered {
  const extras = g.epilogue?.operands ?? 0;
  const output = 2 + extras;
  const bias = hasBias(g, generator);
  const size = g.batch * (g.yRow?.rowsOut ?? g.m) * g.n;
  const splits = splitsOf(g, generator, caps);
  const scratch: number[] = [];
  const passes: Pass[] = [];
  const newScratch = (elements: number): number => output + scratch.push(elements);
  let b = 1;
  if (relayoutB) {
    b = newScratch(relayoutB.sizes.reduce((p, x) => p * x, 1));
    passes.push({ source: relayout(relayoutB, caps), operands: [1, b] });
  }
  const tables: number[] = [];
  if (g.table) {
    tables.push(newScratch(g.table.elements));
    passes.push({ source: g.table.source, operands: tables });
  }
  const target = splits > 1 ? newScratch(splits * size) : output;
  const epilogueOperands = Array.from({ length: extras }, (_, i) => 2 + i);
  if (bias && !g.epilogue) {
    epilogueOperands.push(newScratch(g.n));
    passes.push({ source: zeros(g.n, caps), operands: epilogueOperands });
  }
  passes.push({ source: tiles(g, generator, splits, caps), operands: [0, b, ...tables, ...epilogueOperands, target] });
  if (splits > 1) passes.push({ source: sumParts(size, splits, caps), operands: [target, output] });
  return { passes, scratch };
}

/** The half of C that counts, where one does. */
const halfOf = (g: Gemm): Triangle | undefined => (g.triangle?.of === "result" ? g.triangle : undefined);

/** Multiply-adds that count. */
function macsOf({ m, n, k, batch, triangle }: Gemm): number {
  if (!triangle) return m * n * k * batch;
  const width = triangle.of === "left" ? k : n;
  const below = (i: number): number =>
    Math.max(0, Math.min(width, i + triangle.diagonal + (triangle.half === "lower" ? 1 : 0)));
  let elements = 0;
  for (let i = 0; i < m; i++) elements += triangle.half === "lower" ? below(i) : width - below(i);
  return elements * batch * (triangle.of === "left" ? n : k);
}

/** Is the product plus a bias computed by the tile's own text, whether or not there is a bias? */
function hasBias(g: Gemm, generator: Generator): boolean {
  const own = g.epilogue !== undefined; // comes after the zeros of a triangle, which the tile's text does not
  return generator.alwaysBias === true && widthOf(g.n) === 4 && (!own || (g.epilogue?.bias === true && !halfOf(g)));
}

const BIAS: ReturnType<Epilogue["code"]>["bindings"] = [{ name: "bias", type: "vec4<f32>" }];

function tiles(g: Gemm, generator: Generator, splits: number, caps: Caps): KernelSource {
  const width = widthOf(g.n);
  const rowTiles = Math.ceil(g.m / generator.rows);
  const colTiles = Math.ceil(g.n / generator.cols);
  const grid = foldGrid(Math.ceil((rowTiles * colTiles * g.batch * splits) / generator.perWorkgroup), caps);
  const bias = hasBias(g, generator);
  const epilogue = bias ? undefined : g.epilogue?.code(width);
  const bindings: [string, string][] = [
    ["a", g.a.load === "any" ? "f32" : "vec4<f32>"],
    ["b", g.b.load === "any" ? "f32" : "vec4<f32>"],
    ...(g.table ? [["table", "vec4<u32>"] as [string, string]] : []),
    ...(bias ? BIAS : (epilogue?.bindings ?? [])).map((e): [string, string] => [e.name, e.type]),
    ["y", width === 4 ? "vec4<f32>" : "f32"],
  ];
  const u = uniforms(bindings.length, [
    ["m", "u32", g.m],
    ["n", "u32", g.n],
    ["k", "u32", g.k],
    ["batch", "u32", g.batch],
    // Whole blocks of 16, which every generator's block divides.
    ["k_part", "u32", Math.ceil(g.k / splits / 16) * 16],
    ["parts", "u32", splits],
    ["rows_out", "u32", g.yRow?.rowsOut ?? g.m],
    ["row_tiles", "u32", rowTiles],
    ["col_tiles", "u32", colTiles],
    ["grid_width", "u32", grid[0]],
    ...(g.triangle ? [["diagonal", "i32", g.triangle.diagonal] as const] : []),
    ...g.fields,
  ]);
  return {
    label: [g.label, g.triangle && `${g.triangle.half} ${g.triangle.of}`, generator.name, g.epilogue?.label]
      .filter(Boolean)
      .join(" "),
    flops: 2 * macsOf(g),
    wgsl: wgsl`
      ${generator.directives}
      ${storage(bindings)}
      ${u.wgsl}
      ${g.a.wgsl}
      ${g.b.wgsl}
      ${epilogue?.wgsl ?? ""}
      ${g.yRow?.wgsl ?? ""}
      ${store(width, g, epilogue !== undefined)}
      ${placement(generator, g.triangle)}
      ${generator.main(g, bias)}
    `,
    workgroups: grid,
    uniforms: u.words,
  };
}

/** `put(t, row, col, acc)` stores 4 columns of one row, with the epilogue, and skips what lies outside C. */
function store(width: 1 | 4, g: Gemm, epilogue: boolean): string {
  const apply = (acc: string, col: string): string => (epilogue ? `epilogue(${acc}, r, ${col})` : acc);
  const half = halfOf(g);
  const counted = `vec4<i32>(i32(col)) + vec4<i32>(0, 1, 2, 3) ${half?.half === "lower" ? "<=" : ">="} vec4<i32>(i32(row) + u.diagonal)`;
  const body =
    width === 4
      ? `y[(r * u.n + col) / 4u] = ${apply("acc", "col")};`
      : `for (var j = 0u; j < min(4u, u.n - col); j++) { y[r * u.n + col + j] = ${apply("acc[j]", "col + j")}; }`;
  return wgsl`
    fn put(t: Place, row: u32, col: u32, sum: vec4<f32>) {
      if (row >= u.m || col >= u.n) { return; }
      let acc = ${half ? `select(vec4<f32>(), sum, ${counted})` : "sum"};
      let local = ${g.yRow ? "y_row(row)" : "row"};
      ${g.yRow ? "if (local >= u.rows_out) { return; }" : ""}
      let r = t.part * u.rows_out + local;
      ${body}
    }
  `;
}

/**
 * x / d through floats, because a software adapter divides integers one lane at a time. That is exact while the quotient
 * is below 2^21: the rounded one is then off by at most one.
 */
export const DIVIDE = `fn divide(x: u32, d: u32) -> u32 {
  let q = u32(f32(x) / f32(d));
  let rest = i32(x - q * d);
  return q + select(0u, 1u, rest >= i32(d)) - select(0u, 1u, rest < 0);
}`;

/**
 * Which tile a workgroup (or thread) computes. Tiles go down bands of 8 row tiles, so that workgroups that run at the same time
 * share 8 slices of A and few slices of B in the cache. `part` counts [split of k, batch].
 */
function placement({ rows, cols }: Tile, triangle: Triangle | undefined): string {
  const [row, col] = [`row_tile * ${rows}u`, `col_tile * ${cols}u`];
  // Blocks of 16, as k is cut: what an outermost block has of the other half, it multiplies by zeros.
  const after = `u32(max(0, (i32(${row}) + ${rows} + u.diagonal + 15) & ~15))`;
  const before = `u32(max(0, i32(${row}) + u.diagonal) & ~15)`;
  const nothing =
    triangle?.half === "lower"
      ? `i32(${col}) > i32(${row}) + ${rows - 1} + u.diagonal`
      : `i32(${col}) + ${cols - 1} < i32(${row}) + u.diagonal`;
  const limits = !triangle
    ? []
    : triangle.of === "result"
      ? [`if (${nothing}) { k_end = k_begin; }`]
      : [triangle.half === "lower" ? `k_end = min(k_end, ${after});` : `k_begin = max(k_begin, ${before});`];
  return wgsl`
    struct Place { row: u32, col: u32, batch: u32, part: u32, k_begin: u32, k_end: u32 }
    ${DIVIDE}
    fn place(flat: u32) -> Place {
      let tiles = u.row_tiles * u.col_tiles;
      let part = divide(flat, tiles);
      let tile = flat - part * tiles;
      let band = divide(tile, 8u * u.col_tiles);
      let in_band = tile - band * 8u * u.col_tiles;
      let height = min(8u, u.row_tiles - band * 8u);
      let col_tile = divide(in_band, height);
      let row_tile = band * 8u + in_band - col_tile * height;
      let split = divide(part, u.batch);
      ${triangle ? "var" : "let"} k_begin = split * u.k_part;
      ${triangle ? "var" : "let"} k_end = min(k_begin + u.k_part, u.k);
      ${limits}
      return Place(${row}, ${col}, part - split * u.batch, part, k_begin, k_end);
    }
    fn outside(t: Place) -> bool { return t.part >= u.batch * u.parts; }
  `;
}

/** Strided copy into a contiguous [s0, s1, rows, cols]; one thread per vec4 (or scalar) of the copy. */
function relayout({ sizes, offset, strides }: Relayout, caps: Caps): KernelSource {
  const width = widthOf(sizes[3]);
  const total = (sizes[0] * sizes[1] * sizes[2] * sizes[3]) / width;
  const grid = foldGrid(Math.ceil(total / 64), caps);
  const u = uniforms(2, [
    ["total", "u32", total],
    ["grid_width", "u32", grid[0]],
    ["offset", "u32", offset],
    ["n1", "u32", sizes[1]],
    ["rows", "u32", sizes[2]],
    ["cols", "u32", sizes[3] / width],
    ["s0", "u32", strides[0]],
    ["s1", "u32", strides[1]],
    ["s_row", "u32", strides[2]],
    ["s_col", "u32", strides[3]],
  ]);
  const value = width === 1 ? "x[p]" : "vec4<f32>(x[p], x[p + u.s_col], x[p + 2u * u.s_col], x[p + 3u * u.s_col])";
  return {
    label: `relayout x${width}`,
    wgsl: wgsl`
      ${storage([
        ["x", "f32"],
        ["y", width === 4 ? "vec4<f32>" : "f32"],
      ])}
      ${u.wgsl}
      @compute @workgroup_size(64)
      fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
        let i = (wg.y * u.grid_width + wg.x) * 64u + lane;
        if (i >= u.total) { return; }
        let col = i % u.cols * ${width}u;
        let row = i / u.cols % u.rows;
        let outer = i / u.cols / u.rows;
        let p = u.offset + outer / u.n1 * u.s0 + outer % u.n1 * u.s1 + row * u.s_row + col * u.s_col;
        y[i] = ${value};
      }
    `,
    workgroups: grid,
    uniforms: u.words,
    flops: 0,
  };
}

/** The bias of a product that has none. Depends on nothing, so it is written once per recording. */
function zeros(n: number, caps: Caps): KernelSource {
  const grid = foldGrid(Math.ceil(n / 4 / 64), caps);
  return {
    label: "zeros",
    wgsl: wgsl`
      ${storage([["y", "vec4<f32>"]])}
      @compute @workgroup_size(64)
      fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
        let i = (wg.y * grid.x + wg.x) * 64u + lane;
        if (i < arrayLength(&y)) { y[i] = vec4<f32>(); }
      }
    `,
    workgroups: grid,
    uniforms: [],
  };
}

/** Sums the parts of a split k in order: the same bits on every run, unlike atomics. */
function sumParts(size: number, parts: number, caps: Caps): KernelSource {
  const width = widthOf(size);
  const type = width === 4 ? "vec4<f32>" : "f32";
  const grid = foldGrid(Math.ceil(size / width / 64), caps);
  const u = uniforms(2, [
    ["size", "u32", size / width],
    ["parts", "u32", parts],
    ["grid_width", "u32", grid[0]],
  ]);
  return {
    label: `sum parts x${width}`,
    wgsl: wgsl`
      ${storage([
        ["x", type],
        ["y", type],
      ])}
      ${u.wgsl}
      @compute @workgroup_size(64)
      fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
        let i = (wg.y * u.grid_width + wg.x) * 64u + lane;
        if (i >= u.size) { return; }
        var sum = x[i];
        for (var part = 1u; part < u.parts; part++) { sum += x[part * u.size + i]; }
        y[i] = sum;
      }
    `,
    workgroups: grid,
    uniforms: u.words,
    flops: size * parts,
  };
}
