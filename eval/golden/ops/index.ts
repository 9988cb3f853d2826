// Every op that golden cases may name. A case's group decides only which file holds its tensors, not where its op is found.

import { act } from "./act.ts";
import { attention } from "./attention.ts";
import { conv } from "./conv.ts";
import { indexing } from "./indexing.ts";
import { interp } from "./interp.ts";
import { matmul } from "./matmul.ts";
import { norm } from "./norm.ts";
import type { OpFunction, OpTable } from "./op.ts";
import { pad } from "./pad.ts";
import { pool } from "./pool.ts";
import { reduce } from "./reduce.ts";

const GROUPS: readonly OpTable[] = [act, attention, conv, indexing, interp, matmul, norm, pad, pool, reduce];

export const OPS: ReadonlyMap<string, OpFunction> = new Map(GROUPS.flatMap((group) => Object.entries(group)));
