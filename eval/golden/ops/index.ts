// Every op that golden cases may name. A case's group decides only which file holds its tensors, not where its op is found.

import { act } from "./act.ts";
import { attention } from "./attention.ts";
import { indexing } from "./indexing.ts";
import { matmul } from "./matmul.ts";
import { norm } from "./norm.ts";
import type { OpFunction, OpTable } from "./op.ts";
import { reduce } from "./reduce.ts";

const GROUPS: readonly OpTable[] = [act, attention, indexing, matmul, norm, reduce];

export const OPS: ReadonlyMap<string, OpFunction> = new Map(GROUPS.flatMap((group) => Object.entries(group)));
