// What the cartoon stickers show: the reviewed table in subjects.json, one emoji a row, each row looked at as drawn.
// `eyes` is the allow-list for blinking: rows where mirror-symmetric dark ovals are eyes, not nostrils or ears.
// Art: @twemoji/svg 15.0 (CC-BY-4.0). Tags started from emojibase-data 17 (MIT) and were edited. No drawing here.
import table from "./subjects.json" with { type: "json" };

export type SubjectGroup =
  | "face"
  | "animal"
  | "plant"
  | "food"
  | "heart"
  | "symbol"
  | "hand"
  | "object"
  | "sport"
  | "vehicle"
  | "place";

export interface Subject {
  /** Emoji code points in hex, joined by "-": the file name in @twemoji/svg. */
  readonly code: string;
  readonly group: SubjectGroup;
  /** Noun phrase with its article: "a red heart". */
  readonly en: string;
  /** Noun phrase with its measure word. */
  readonly zh: string;
  readonly tags: readonly string[];
  readonly tagsZh: readonly string[];
  /** Ellipses [cx, cy, rx, ry] in the art's 36-unit square. */
  readonly eyes?: readonly (readonly [cx: number, cy: number, rx: number, ry: number])[];
  /** Colour around the eyes, for the eyelid. */
  readonly lid?: string;
}

export const SUBJECTS = table as readonly unknown[] as readonly Subject[];

/** "a red heart" -> "red heart": how a subject is called in options and records. */
export function bareNoun(phrase: string): string {
  return phrase.replace(/^(an?|the) /, "");
}

/** zh and en words that hold for a whole group. */
export const GROUP_WORDS: Readonly<Record<SubjectGroup, readonly string[]>> = {
  face: ["face", "emotion", "表情", "脸"],
  animal: ["animal", "动物"],
  plant: ["plant", "nature", "植物"],
  food: ["food", "eat", "食物", "好吃"],
  heart: ["heart", "love", "爱心", "爱"],
  symbol: ["symbol", "符号"],
  hand: ["hand", "gesture", "手势"],
  object: ["object", "thing", "物品"],
  sport: ["sport", "game", "运动"],
  vehicle: ["vehicle", "travel", "交通工具"],
  place: ["place", "building", "地点"],
};
