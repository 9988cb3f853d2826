// The stages whose work is done item by item, and the order in which a build runs them: words before the filter, which asks for
// them; language after it, so that nothing is asked about what is thrown away.

import type { Stage } from "../stage.ts";
import { collect } from "./collect.ts";
import { describe, summarise, translate } from "./language.ts";
import { measureStage } from "./measure.ts";
import { ocr } from "./ocr.ts";

const before = [collect, measureStage, ocr] as unknown as readonly Stage[];
const after = [describe, summarise, translate] as unknown as readonly Stage[];

export const STAGES = { before, after, all: [...before, ...after] } as const;
