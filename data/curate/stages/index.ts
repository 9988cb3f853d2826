// The stages whose work is done item by item, and the order in which a build runs them: words before the filter, which asks for
// them; domains and language after it, so that nothing is asked about what is thrown away.

import type { Stage } from "../stage.ts";
import { collect } from "./collect.ts";
import { type DomainClassifiers, domainStage } from "./domain.ts";
import { describe, summarise, translate } from "./language.ts";
import { measureStage } from "./measure.ts";
import { ocr } from "./ocr.ts";

export interface Stages {
  readonly before: readonly Stage[];
  readonly after: readonly Stage[];
  readonly all: readonly Stage[];
}

/** All stages; whoever wants domains told brings who tells them. */
export function stages(classifiers: DomainClassifiers = NO_CLASSIFIERS): Stages {
  const before = [collect, measureStage, ocr] as unknown as readonly Stage[];
  const after = [domainStage(classifiers), describe, summarise, translate] as unknown as readonly Stage[];
  return { before, after, all: [...before, ...after] };
}

const missing = (folder: string): never => {
  throw new Error(`annotate.domainModel is ${folder}, but nothing here can read classifiers`);
};
const NO_CLASSIFIERS: DomainClassifiers = { identity: missing, open: async (folder) => missing(folder) };
