// Every op that golden cases may name. A case's group decides only which file holds its tensors, not where its op is found.

import { act } from "./act.ts";
import type { OpFunction, OpTable } from "./op.ts";

const GROUPS: readonly OpTable[] = [act];

export const OPS: ReadonlyMap<string, OpFunction> = new Map(GROUPS.flatMap((group) => Object.entries(group)));
