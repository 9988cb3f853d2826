// The stages whose work is done item by item, in the order in which a build runs them.

import type { Stage } from "../stage.ts";
import { collect } from "./collect.ts";
import { measureStage } from "./measure.ts";

export const STAGES = [collect, measureStage] as unknown as readonly Stage[];
