// What a starter sticker is called: captions in English and Chinese and trigger words, true by construction.
// Called by record-writing code and by whoever wants the caption of a sticker that was never made.

import { ACTIONS, actionWords } from "./actions.ts";
import { findSolid, findSubject } from "./cast.ts";
import { type GroundId, groundWords } from "./grounds.ts";
import type { Recipe } from "./plan.ts";
import { FLOORS, type FloorId } from "./solids.ts";
import { GROUP_WORDS } from "./subjects.ts";

/** The description only: the domain is a field of its own, joined with a tab where a model reads it. */
export interface Captions {
  readonly en: string;
  readonly zh: string;
}

type Worded = Pick<Recipe, "domain" | "subject" | "action" | "ground" | "text" | "wording">;

interface Parts {
  readonly nounEn: string;
  readonly nounZh: string;
  readonly tags: readonly string[];
  readonly verbs: { readonly en: readonly string[]; readonly zh: readonly string[] };
  readonly place: { readonly en: string; readonly zh: string };
}

function partsOf(r: Worded): Parts {
  if (r.domain === "Real") {
    const solid = findSolid(r.subject);
    const floor = FLOORS[r.ground as FloorId];
    const over = r.action === "float" ? "over" : "on";
    const tags = [...solid.tags, ...solid.tagsZh];
    const place = { en: `${over} a ${floor.en}`, zh: floor.zh };
    return { nounEn: solid.en, nounZh: solid.zh, tags, verbs: ACTIONS[r.action], place };
  }
  const subject = findSubject(r.subject);
  const tags = [...subject.tags, ...GROUP_WORDS[subject.group], ...subject.tagsZh];
  const verbs = actionWords(r.action, subject.group, subject.eyes !== undefined);
  return { nounEn: subject.en, nounZh: subject.zh, tags, verbs, place: groundWords(r.ground as GroundId) };
}

/** 'a dog bouncing on a pink background, with the text "OK!"' and the same in Chinese. */
export function captionsOf(r: Worded): Captions {
  const { nounEn, nounZh, verbs, place } = partsOf(r);
  const en = [nounEn, verbs.en[r.wording], place.en].filter(Boolean).join(" ");
  const zh = `${nounZh}在${place.zh && `${place.zh}上`}${verbs.zh[r.wording]}`;
  if (r.text === null) return { en, zh };
  return { en: `${en}, with the text "${r.text}"`, zh: `${zh}，写着“${r.text}”` };
}

/** Words somebody might search this sticker by, both languages mixed, no doubles. */
export function triggerWordsOf(r: Worded): string[] {
  const { tags, verbs } = partsOf(r);
  const text = r.text === null ? [] : [r.text.toLowerCase()];
  return [...new Set([...tags, r.action, ...verbs.en, ...verbs.zh, ...text])];
}
