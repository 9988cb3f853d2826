// Who can do what: subjects and solids found by name, and the (subject, action) pairs that a user's restrictions leave.
// Called by plan.ts (pairs), captions.ts, cartoon.ts and real.ts (look-ups).

import type { Domain } from "../record.ts";
import { ACTION_IDS, type ActionId } from "./actions.ts";
import { SOLIDS, type Solid } from "./solids.ts";
import { bareNoun, SUBJECTS, type Subject } from "./subjects.ts";

/** A subject and an action, by the names used in records: { subject: "red heart", action: "pulse" }. */
export interface Pair {
  readonly subject: string;
  readonly action: ActionId;
}

export interface Restriction {
  /** Only these subjects ("red heart", "a red heart" or the emoji code "2764") and actions. */
  readonly only?: { readonly subjects?: readonly string[]; readonly actions?: readonly string[] };
  /** Pairs that must not appear: kept for testing on what was never trained. */
  readonly exclude?: readonly { readonly subject: string; readonly action: string }[];
}

/** What makes sense for a solid: it has no eyes, and its back is as good as its front. */
export const SOLID_ACTIONS = ACTION_IDS.filter((id) => !["blink", "swing", "flip"].includes(id));
type Named = Subject | Solid;
const cartoonByName = new Map(SUBJECTS.flatMap((s) => [s.code, bareNoun(s.en)].map((name) => [name, s] as const)));
const solidByName = new Map(SOLIDS.map((s) => [bareNoun(s.en), s]));

/** Throws RangeError if there is no such subject in the domain. */
export function findSubject(name: string): Subject {
  const found = cartoonByName.get(bareNoun(name.trim()));
  if (!found) throw unknownSubject(name);
  return found;
}

/** Throws RangeError if there is no such solid. */
export function findSolid(name: string): Solid {
  const found = solidByName.get(bareNoun(name.trim()));
  if (!found) throw unknownSubject(name);
  return found;
}

function unknownSubject(name: string): RangeError {
  return new RangeError(
    `starter set: there is no subject "${name}"; use a name such as "red heart", "dog" or "blue cube" ` +
      "(all are listed in data/starter/subjects.json and solids.ts)",
  );
}

/** A subject's name in records, whichever way the user wrote it. */
function canonicalName(name: string): string {
  const bare = bareNoun(name.trim());
  const found: Named | undefined = cartoonByName.get(bare) ?? solidByName.get(bare);
  if (!found) throw unknownSubject(name);
  return bareNoun(found.en);
}

function actionId(name: string): ActionId {
  if ((ACTION_IDS as readonly string[]).includes(name)) return name as ActionId;
  throw new RangeError(`starter set: there is no action "${name}"; choose from ${ACTION_IDS.join(", ")}`);
}

/** The (subject, action) pairs that `options` leave, by domain. Throws RangeError where a domain is left empty. */
export function pairsOf(options: Restriction, domain: Domain): Pair[] {
  const keep = options.only?.subjects && new Set(options.only.subjects.map(canonicalName));
  const wanted = options.only?.actions?.map(actionId) ?? ACTION_IDS;
  const out = new Set(options.exclude?.map((p) => `${canonicalName(p.subject)}\n${actionId(p.action)}`));
  const names = [...(domain === "Cartoon" ? SUBJECTS : SOLIDS)].map((s) => bareNoun(s.en));
  const able = domain === "Cartoon" ? ACTION_IDS : SOLID_ACTIONS;
  return names
    .filter((subject) => !keep || keep.has(subject))
    .flatMap((subject) => wanted.filter((a) => able.includes(a)).map((action) => ({ subject, action })))
    .filter((p) => !out.has(`${p.subject}\n${p.action}`));
}
