// The variants that matmul and the convolutions share: which generator of gemm_tiles.ts serves which adapter and which
// shape. Called by matmul.ts and conv.ts.

import type { Generator } from "./gemm.ts";
import { matrixShape, matrixTile } from "./gemm_matrix.ts";
import { portableTile, SHARED_BYTES, sharedTile, shuffleTile } from "./gemm_tiles.ts";
import type { Caps, Family, Lowered, MatrixShape, Variant } from "./wgsl.ts";

/** What a family says to get one variant per generator. */
export interface Tiled<S> {
  /** Columns of C. */
  columns(spec: S): number;
  /** Multiply-adds of the whole product. */
  macs(spec: S): number;
  /** B is read along k, four columns at a time: then 64 columns are no better than 32, and twice the text. */
  alongK?(spec: S): boolean;
  /** f16 holds every element of A and B exactly. */
  halves?(spec: S): boolean;
  /** `vectors` is false for the portable tile, which loads scalars only. */
  lower(spec: S, generator: Generator, vectors: boolean, caps: Caps): Lowered;
}

/** From here on the larger tiles are a third faster. Their texts take twice as long to compile, but a program has few of them. */
const LARGE_MACS = 2 ** 22;

/** Do tiles of 64 columns waste no more than tiles of 32 would, or little? */
const filled = (columns: number): boolean => columns > 128 || (columns > 32 && (columns - 1) % 64 >= 32);

const shuffles = (caps: Caps): boolean => caps.adapter === "cpu" && [4, 8, 16].includes(caps.subgroupSize);

/** 16 x 64 (16 x 32 with 4 lanes): fewest loads per multiply-add. */
function large(subgroup: number): Generator {
  return shuffleTile({ subgroup, across: subgroup, rows: 16, columns: subgroup === 16 ? 1 : 2 });
}

/** 16 x 32 (16 x 16 with 4 lanes): twice the work per load of B, half the text of the large tile. */
function tall(subgroup: number): Generator {
  const across = Math.min(subgroup, 8);
  return shuffleTile({ subgroup, across, rows: subgroup === 16 ? 8 : 16, columns: 1 });
}

/** 8 x 32 (16 x 32 with 16 lanes): the accumulators nearly fit the registers, and small products waste little. */
function base(subgroup: number): Generator {
  const across = Math.min(subgroup, 8);
  return shuffleTile({ subgroup, across, rows: 8, columns: 8 / across });
}

/** 16 columns and, with 8 lanes, 16 rows: for attention heads and outputs with few channels. */
function narrow(subgroup: number): Generator {
  return shuffleTile({ subgroup, across: 4, rows: 8, columns: 1 });
}

/** Shapes of shuffle tiles that tuning may try beside those above: rows of each lane, vec4 columns of each lane. */
const OTHER_TILES = [
  [8, 2],
  [32, 1],
] as const;

/** Variants, fastest first, and what tuning may choose instead. With at most 4 columns lanes are best as rows: portable. */
export function tileVariants<S>({
  columns,
  macs,
  alongK,
  halves,
  lower,
}: Tiled<S>): Pick<Family<S>, "variants" | "candidates"> {
  const shuffle = (name: string, make: (subgroup: number) => Generator, fits: (s: S) => boolean): Variant<S> => ({
    name,
    epilogues: "bias",
    supports: (s, caps) => shuffles(caps) && fits(s),
    emit: (s, caps) => lower(s, make(caps.subgroupSize), true, caps),
  });
  const anywhere = (): boolean => true;
  const other = OTHER_TILES.map(([rows, columns]) =>
    shuffle(
      `shuffle-${rows}x${columns}`,
      (subgroup) => shuffleTile({ subgroup, across: Math.min(subgroup, 8), rows, columns }),
      anywhere,
    ),
  );
  const candidates = [
    shuffle("shuffle-large", large, anywhere),
    shuffle("shuffle-tall", tall, anywhere),
    shuffle("shuffle", base, anywhere),
    shuffle("shuffle-narrow", narrow, anywhere),
    ...other,
  ];
  const variants: Variant<S>[] = [
    shuffle("shuffle-large", large, (s) => filled(columns(s)) && !alongK?.(s) && macs(s) >= LARGE_MACS),
    shuffle("shuffle-tall", tall, (s) => columns(s) > 16 && macs(s) >= LARGE_MACS),
    shuffle("shuffle", base, (s) => columns(s) > 16),
    shuffle("shuffle-narrow", narrow, (s) => columns(s) > 4),
    {
      name: "matrix",
      supports: (s, caps) => columns(s) > 16 && matrixShape(caps, halves?.(s) ?? false) !== null,
      emit: (s, caps) => lower(s, matrixTile(matrixShape(caps, halves?.(s) ?? false) as MatrixShape), true, caps),
    },
    {
      name: "shared",
      supports: (_, caps) =>
        caps.adapter === "gpu" && caps.maxInvocations >= 256 && caps.maxWorkgroupMemory >= SHARED_BYTES,
      emit: (s, caps) => lower(s, sharedTile, true, caps),
    },
    { name: "portable", supports: () => true, emit: (s, caps) => lower(s, portableTile, false, caps) },
  ];
  return { variants, candidates };
}
