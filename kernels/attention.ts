// Fused attention: softmax(scale q k^T) v without ever storing the scores (FlashAttention, Dao et al. 2022: keys in
// blocks, a running maximum and sum per query). Forward only; the projections around it are matmuls. Called through
// engine/ops/composite.ts.

import { type Caps, type Family, foldGrid, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

/** q [batch, queries, heads, dim], k and v [batch, keys, heads, dim]. */
export interface AttentionSpec {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  readonly dim: number;
  readonly scale: number;
  /** Query i sees keys j <= i + keys - queries: the last query sees all. A query that sees none gives zeros. */
  readonly causal: boolean;
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Uniforms of all variants. `past` is how many keys the first query sees before itself. */
function sizes(spec: AttentionSpec, width: 1 | 4, tile: number): { wgsl: string; words: number[] } {
  return uniforms(4, [
    ["batch_heads", "u32", spec.batch * spec.heads],
    ["queries", "u32", spec.queries],
    ["keys", "u32", spec.keys],
    ["heads", "u32", spec.heads],
    ["dim", "u32", spec.dim / width],
    ["tiles", "u32", Math.ceil(spec.queries / tile)],
    ["past", "i32", spec.causal ? spec.keys - spec.queries : spec.keys],
    ["scale", "f32", spec.scale],
  ]);
}

// Number of keys that query i sees; and where a head starts, with `stride` between its tokens.
const VISIBLE = wgsl`
  fn visible(i: u32) -> u32 { return u32(clamp(i32(i) + 1 + u.past, 0, i32(u.keys))); }
`;
const HEAD = wgsl`
  let stride = u.heads * u.dim;
  let q_base = (bh / u.heads) * u.queries * stride + (bh % u.heads) * u.dim;
  let k_base = (bh / u.heads) * u.keys * stride + (bh % u.heads) * u.dim;
`;
const TILE = wgsl`
  let flat = wg.y * grid.x + wg.x;
  let bh = flat / u.tiles;
  if (bh >= u.batch_heads) { return; }
  let first = (flat % u.tiles) * QUERIES;
  let rows = min(QUERIES, u.queries - first);
  let last_visible = visible(first + rows - 1u);
`;
const BUFFERS = (type: string): string => storage(["q", "k", "v", "o"].map((name) => [name, type] as const));

/**
 * Idea: one subgroup computes 8 queries of one head. For the scores a lane is a key (two of them), for the output a lane
 * is a vec4 of the head's dimensions, and query values, maxima and weights reach the other lanes by shuffle, a tenth of
 * a load. Lane i keeps the maximum of query i, so that one exp serves 8 queries; sums stay apart per lane until the end.
 * Traffic: k, v and the 8 query rows once per 8 queries and 16 keys, the latter from cache. Wins on CPU adapters.
 * Baked: ceil(dim / 4 / subgroup), the vec4 of the output that a lane keeps, because registers cannot be indexed. All
 * else is rolled, since unrolled loads dominate the compile: the queries are not kept (a load per dimension instead),
 * and the output is stored by a loop that selects its row.
 */
function emitSubgroup(spec: AttentionSpec, caps: Caps): Lowered {
  const lanes = caps.subgroupSize;
  const Q = range(Math.min(8, lanes));
  const X = range(2); // keys per lane: each shuffled query value is used twice
  const C = range(Math.ceil(spec.dim / 4 / lanes));
  const masks = range(Math.log2(lanes)).map((b) => 2 ** b);
  const block = lanes * X.length;
  const u = sizes(spec, 4, Q.length);
  const each = <T>(list: readonly T[], f: (item: T) => string): string => list.map(f).join("\n");
  const text = wgsl`
    enable subgroups;
    diagnostic(off, subgroup_uniformity);
    const QUERIES = ${Q.length}u;
    ${BUFFERS("vec4<f32>")}
    ${u.wgsl}
    ${VISIBLE}
    fn highest(x: f32) -> f32 {
      var t = x;
      ${each(masks, (m) => `t = max(t, subgroupShuffleXor(t, ${m}u));`)}
      return t;
    }
    fn total(x: f32) -> f32 {
      var t = x;
      ${each(masks, (m) => `t += subgroupShuffleXor(t, ${m}u);`)}
      return t;
    }
    @compute @workgroup_size(${lanes})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
      ${TILE}
      ${HEAD}
      ${each(C, (c) => `let column${c} = min(lane + ${c * lanes}u, u.dim - 1u);`)}
      var top = -3.0e38f; // of the query numbered like this lane
      ${each(Q, (i) => `var sum${i} = 0.0f; let seen${i} = visible(first + ${i}u);`)}
      ${each(Q, (i) => each(C, (c) => `var o${i}_${c} = vec4<f32>();`))}
      let q_at = q_base + (first + min(lane, rows - 1u)) * stride;
      for (var j0 = 0u; j0 < last_visible; j0 += ${block}u) {
        ${each(X, (x) => `let key${x} = j0 + lane + ${x * lanes}u; let at${x} = k_base + min(key${x}, u.keys - 1u) * stride;`)}
        ${each(Q, (i) => each(X, (x) => `var s${i}_${x} = 0.0f;`))}
        for (var d = 0u; d < u.dim; d++) {
          let mine = q[q_at + d] * u.scale;
          ${each(X, (x) => `let k${x} = k[at${x} + d];`)}
          ${each(
            Q,
            (i) => `let a${i} = subgroupShuffle(mine, ${i}u);
          ${each(X, (x) => `s${i}_${x} = fma(a${i}.w, k${x}.w, fma(a${i}.z, k${x}.z, fma(a${i}.y, k${x}.y, fma(a${i}.x, k${x}.x, s${i}_${x}))));`)}`,
          )}
        }
        var tops = top;
        ${each(
          Q,
          (i) => `${each(X, (x) => `s${i}_${x} = select(-3.0e38f, s${i}_${x}, key${x} < seen${i});`)}
        let high${i} = highest(${X.map((x) => `s${i}_${x}`).reduce((a, b) => `max(${a}, ${b})`)});
        tops = select(tops, max(tops, high${i}), lane == ${i}u);`,
        )}
        let shrink = exp(top - tops);
        top = tops;
        ${each(
          Q,
          (i) => `let top${i} = subgroupShuffle(tops, ${i}u);
        let shrink${i} = subgroupShuffle(shrink, ${i}u);
        ${each(X, (x) => `s${i}_${x} = select(0.0f, exp(s${i}_${x} - top${i}), key${x} < seen${i});`)}
        sum${i} = sum${i} * shrink${i} + ${X.map((x) => `s${i}_${x}`).join(" + ")};
        ${each(C, (c) => `o${i}_${c} *= shrink${i};`)}`,
        )}
        ${each(
          X,
          (x) => `
        for (var j = 0u; j0 + j + ${x * lanes}u < min(last_visible, j0 + ${(x + 1) * lanes}u); j++) {
          let at = k_base + (j0 + j + ${x * lanes}u) * stride;
          ${each(C, (c) => `let v${c} = v[at + column${c}];`)}
          ${each(
            Q,
            (i) => `let w${i} = vec4<f32>(subgroupShuffle(s${i}_${x}, j));
          ${each(C, (c) => `o${i}_${c} = fma(w${i}, v${c}, o${i}_${c});`)}`,
          )}
        }`,
        )}
      }
      ${each(Q, (i) => `let inverse${i} = 1.0f / max(total(sum${i}), 1e-30f);`)}
      for (var i = 0u; i < rows; i++) {
        let at = q_base + (first + i) * stride;
        ${each(
          C,
          (c) => `
        var row${c} = vec4<f32>();
        ${each(Q, (i) => `row${c} = select(row${c}, o${i}_${c} * inverse${i}, i == ${i}u);`)}
        if (lane + ${c * lanes}u < u.dim) { o[at + column${c}] = row${c}; }`,
        )}
      }
    }
  `;
  return lowered(`attention/subgroup${lanes}c${C.length}`, text, u.words, spec, Q.length, caps);
}

/** Query and key rows of the shared-memory variant's tile, and vec4 of the dimension staged at a time. */
const SHARED = { queries: 32, keys: 32, depth: 8 } as const;

/**
 * Idea: 128 threads compute 32 queries of one head. Scores: a 32x32 tile, 4 queries x 2 keys per thread, with the keys
 * staged in shared memory 32 dimensions at a time; softmax: 4 threads per query; output: 16 threads share a row, 4
 * queries each. q is read straight from memory, the same vec4 by 16 neighbours, and v too, side by side: caches serve
 * both. Traffic: k and v once per 32 queries, q once per 32 keys. 9 KB of shared memory. Meant for GPUs.
 * Baked: ceil(dim / 64), the vec4 of the output that a thread keeps in registers. Addresses are not hoisted over
 * barriers: values alive across one made the software compile 3 times slower, and GPUs hoist by themselves.
 */
function emitShared(spec: AttentionSpec, caps: Caps): Lowered {
  const C = range(Math.ceil(spec.dim / 64));
  const Q = range(4);
  const u = sizes(spec, 4, SHARED.queries);
  const each = <T>(list: readonly T[], f: (item: T) => string): string => list.map(f).join("\n");
  const text = wgsl`
    const QUERIES = ${SHARED.queries}u;
    const KEYS = ${SHARED.keys}u;
    const DEPTH = ${SHARED.depth}u;
    const PITCH = DEPTH + 1u; // odd, so that rows fall on different banks
    ${BUFFERS("vec4<f32>")}
    ${u.wgsl}
    ${VISIBLE}
    var<workgroup> k_tile: array<vec4<f32>, KEYS * PITCH>;
    var<workgroup> weights: array<f32, QUERIES * (KEYS + 1u)>;
    var<workgroup> shrink: array<f32, QUERIES>;
    @compute @workgroup_size(128)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
      ${TILE}
      ${HEAD}
      let tx = t % 16u;
      let ty = t / 16u * 4u;
      let my_row = t / 4u;
      let my_part = t % 4u;
      let my_visible = visible(first + my_row);
      var top = -3.0e38f;
      var sum = 0.0f;
      ${each(C, (c) => `let column${c} = min(tx + ${c * 16}u, u.dim - 1u);`)}
      ${each(Q, (i) => each(C, (c) => `var o${i}_${c} = vec4<f32>();`))}
      for (var j0 = 0u; j0 < last_visible; j0 += KEYS) {
        let here = min(KEYS, u.keys - j0);
        ${each(Q, (i) => `var s${i}_0 = 0.0f; var s${i}_1 = 0.0f;`)}
        for (var d0 = 0u; d0 < u.dim; d0 += DEPTH) {
          for (var e = t; e < KEYS * DEPTH; e += 128u) {
            let r = e / DEPTH;
            let d = e % DEPTH;
            k_tile[r * PITCH + d] = k[k_base + min(j0 + r, u.keys - 1u) * stride + min(d0 + d, u.dim - 1u)];
          }
          workgroupBarrier();
          for (var d = 0u; d < min(DEPTH, u.dim - d0); d++) {
            let k0 = k_tile[tx * PITCH + d];
            let k1 = k_tile[(tx + 16u) * PITCH + d];
            ${each(
              Q,
              (i) => `let a${i} = q[q_base + min(first + ty + ${i}u, u.queries - 1u) * stride + d0 + d];
            s${i}_0 += dot(a${i}, k0);
            s${i}_1 += dot(a${i}, k1);`,
            )}
          }
          workgroupBarrier();
        }
        ${each(
          Q,
          (i) => `weights[(ty + ${i}u) * (KEYS + 1u) + tx] = s${i}_0 * u.scale;
        weights[(ty + ${i}u) * (KEYS + 1u) + tx + 16u] = s${i}_1 * u.scale;`,
        )}
        workgroupBarrier();
        let row_at = my_row * (KEYS + 1u);
        var higher = top;
        for (var j = 0u; j < here && j0 + j < my_visible; j++) { higher = max(higher, weights[row_at + j]); }
        workgroupBarrier(); // all four threads of a row have its maximum before any overwrites a score
        let factor = exp(top - higher);
        top = higher;
        sum *= factor;
        for (var j = my_part; j < here; j += 4u) {
          let w = select(0.0f, exp(weights[row_at + j] - top), j0 + j < my_visible);
          weights[row_at + j] = w;
          sum += w;
        }
        if (my_part == 0u) { shrink[my_row] = factor; }
        workgroupBarrier();
        ${each(Q, (i) => `let f${i} = shrink[ty + ${i}u];\n${each(C, (c) => `o${i}_${c} *= f${i};`)}`)}
        for (var j = 0u; j < here; j++) {
          let at = k_base + (j0 + j) * stride;
          ${each(C, (c) => `let v${c} = v[at + column${c}];`)}
          ${each(
            Q,
            (i) => `let w${i} = weights[(ty + ${i}u) * (KEYS + 1u) + j];
          ${each(C, (c) => `o${i}_${c} = fma(vec4<f32>(w${i}), v${c}, o${i}_${c});`)}`,
          )}
        }
        workgroupBarrier();
      }
      weights[my_row * (KEYS + 1u) + my_part] = sum;
      workgroupBarrier();
      ${each(
        Q,
        (i) => `
      if (ty + ${i}u < rows) {
        let sums = (ty + ${i}u) * (KEYS + 1u);
        let whole = weights[sums] + weights[sums + 1u] + weights[sums + 2u] + weights[sums + 3u];
        let at = q_base + (first + ty + ${i}u) * stride;
        ${each(C, (c) => `if (tx + ${c * 16}u < u.dim) { o[at + column${c}] = o${i}_${c} / max(whole, 1e-30f); }`)}
      }`,
      )}
    }
  `;
  return lowered(`attention/shared_c${C.length}`, text, u.words, spec, SHARED.queries, caps);
}

/**
 * Idea: a thread is one query; it keeps its running output in its own row of `o`, so that any dimension works without
 * arrays, and takes 8 keys at a time to touch that row rarely. A workgroup computes 64 queries of one head. Traffic:
 * every thread reads all of k and v. For adapters and dimensions that the others refuse.
 */
function emitThread(spec: AttentionSpec, caps: Caps): Lowered {
  const u = sizes(spec, 1, 64);
  const text = wgsl`
    const QUERIES = 64u;
    ${BUFFERS("f32")}
    ${u.wgsl}
    ${VISIBLE}
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
      ${TILE}
      if (t >= rows) { return; }
      ${HEAD}
      let at = q_base + (first + t) * stride;
      let seen = visible(first + t);
      var top = -3.0e38f;
      var sum = 0.0f;
      var w: array<f32, 8>;
      for (var d = 0u; d < u.dim; d++) { o[at + d] = 0.0f; }
      for (var j0 = 0u; j0 < seen; j0 += 8u) {
        let block = min(8u, seen - j0);
        let before = top;
        for (var j = 0u; j < block; j++) {
          let key = k_base + (j0 + j) * stride;
          var s = 0.0f;
          for (var d = 0u; d < u.dim; d++) { s = fma(q[at + d], k[key + d], s); }
          w[j] = s * u.scale;
          top = max(top, w[j]);
        }
        let shrink = exp(before - top);
        sum *= shrink;
        for (var j = 0u; j < block; j++) {
          w[j] = exp(w[j] - top);
          sum += w[j];
        }
        for (var d = 0u; d < u.dim; d++) {
          var acc = o[at + d] * shrink;
          for (var j = 0u; j < block; j++) { acc = fma(w[j], v[k_base + (j0 + j) * stride + d], acc); }
          o[at + d] = acc;
        }
      }
      for (var d = 0u; d < u.dim; d++) { o[at + d] /= max(sum, 1e-30f); }
    }
  `;
  return lowered("attention/thread", text, u.words, spec, 64, caps);
}

function lowered(label: string, text: string, words: number[], spec: AttentionSpec, tile: number, caps: Caps): Lowered {
  const workgroups = foldGrid(spec.batch * spec.heads * Math.ceil(spec.queries / tile), caps);
  const flops = (4 * spec.batch * spec.heads * spec.queries * spec.keys * spec.dim) / (spec.causal ? 2 : 1);
  return {
    passes: [{ source: { label, wgsl: text, workgroups, uniforms: words, flops }, operands: [0, 1, 2, 3] }],
    scratch: [],
  };
}

const subgroup: Variant<AttentionSpec> = {
  name: "subgroup",
  supports: (s, caps) =>
    caps.adapter === "cpu" && caps.subgroupSize > 1 && s.dim % 4 === 0 && s.dim <= 20 * caps.subgroupSize,
  emit: emitSubgroup,
};

const shared: Variant<AttentionSpec> = {
  name: "shared",
  supports: (s, caps) =>
    caps.adapter === "gpu" &&
    caps.maxInvocations >= 128 &&
    caps.maxWorkgroupMemory >= 16384 &&
    s.dim % 4 === 0 &&
    s.dim <= 256,
  emit: emitShared,
};

const thread: Variant<AttentionSpec> = { name: "thread", supports: () => true, emit: emitThread };

/** softmax(scale q k^T, over keys) v per batch entry and head; [batch, queries, heads, dim]. */
export const attention: Family<AttentionSpec> = {
  name: "attention",
  variants: [subgroup, shared, thread],
  inputs: (s) => [
    { dtype: "f32", size: s.batch * s.queries * s.heads * s.dim },
    { dtype: "f32", size: s.batch * s.keys * s.heads * s.dim },
    { dtype: "f32", size: s.batch * s.keys * s.heads * s.dim },
  ],
  outputs: (s) => [{ dtype: "f32", size: s.batch * s.queries * s.heads * s.dim }],
  reference({ batch, queries, keys, heads, dim, scale, causal }, [q, k, v]) {
    const out = new Float64Array(batch * queries * heads * dim);
    for (let b = 0; b < batch; b++)
      for (let h = 0; h < heads; h++)
        for (let i = 0; i < queries; i++) {
          const at = ((b * queries + i) * heads + h) * dim;
          const seen = causal ? Math.max(0, i + 1 + keys - queries) : keys;
          const key = (j: number): number => ((b * keys + j) * heads + h) * dim;
          const scores = range(seen).map((j) => range(dim).reduce((s, d) => s + q[at + d] * k[key(j) + d], 0) * scale);
          const top = scores.reduce((a, s) => Math.max(a, s), -Infinity);
          const sum = scores.reduce((a, s) => a + Math.exp(s - top), 0);
          for (let j = 0; j < seen; j++)
            for (let d = 0; d < dim; d++) out[at + d] += (Math.exp(scores[j] - top) / sum) * v[key(j) + d];
        }
    return [out];
  },
  // Larger dimensions only make other texts of the same kernels, at seconds of compiling each on software adapters.
  draw: (d) => ({
    batch: d.int(1, 2),
    queries: d.pick([1, 7, 8, 9, 32, 33, 65, d.int(1, 70)]),
    keys: d.pick([1, 8, 15, 16, 17, 32, 33, 77, d.int(1, 90)]),
    heads: d.int(1, 3),
    dim: d.pick([4, 5, 8, 32, 36, 64]),
    scale: d.pick([0.125, 1]),
    causal: d.pick([true, false]),
  }),
  rtol: 2e-5,
  why: "exp, and sums of up to a hundred f32",
};

export const families: readonly Family<unknown>[] = [attention];
