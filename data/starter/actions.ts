// The twelve actions: each is a pure function from phase p in [0, 1) to a pose, and its words in both languages.
// Loops are seamless because every pose is a 1-periodic function of p; no pose is edge-on, off stage or invisible, so
// the first frame (and any other) shows the subject. Who is drawn, and how, is cartoon.ts and real.ts.

/** Where the subject is, relative to rest. Lengths are fractions of the subject's own size; +y is up. */
export interface Pose {
  readonly dx: number;
  readonly dy: number;
  /** Degrees, clockwise. */
  readonly turn: number;
  readonly scaleX: number;
  readonly scaleY: number;
  /** Height in [-0.5, 0.5] of the point that turning and scaling leave in place: -0.5 is the foot. */
  readonly pivot: number;
  /** 0 normal .. 1 dissolved into the ground. */
  readonly fade: number;
  /** 0 eyes open .. 1 closed. */
  readonly lids: number;
  /** Sideways distance to a second copy of the subject, or 0 for none. */
  readonly copyDx: number;
}

interface Words {
  /** [0] names the action in plain sets; the rest are synonyms. Participles in English. */
  readonly en: readonly string[];
  readonly zh: readonly string[];
}

export interface Action extends Words {
  /** Subject size as a fraction of the stage, chosen so that the motion stays on stage. */
  readonly fit: number;
  /** Height of the subject's centre at rest, as a fraction of the stage. */
  readonly rest: number;
  /** `vigour` is about 1 and scales the motion. */
  pose(p: number, vigour: number): Partial<Pose>;
}

const REST: Pose = { dx: 0, dy: 0, turn: 0, scaleX: 1, scaleY: 1, pivot: 0, fade: 0, lids: 0, copyDx: 0 };
const FOOT = -0.5;
const HEAD = 0.5;

const sin = (p: number) => Math.sin(2 * Math.PI * p);
const cos = (p: number) => Math.cos(2 * Math.PI * p);
/** A smooth bump: 1 at p = centre, 0 half a width away, period 1. */
function bump(p: number, centre: number, width: number): number {
  const off = Math.abs(((((p - centre + 0.5) % 1) + 1) % 1) - 0.5) / width;
  return off < 0.5 ? 0.5 + 0.5 * Math.cos(2 * Math.PI * off) : 0;
}
/** Widen by `s` and flatten to keep the area, standing on the foot. */
function squashed(s: number): Partial<Pose> {
  return { scaleX: 1 + s, scaleY: 1 / (1 + s), pivot: FOOT };
}

export const ACTIONS = {
  bounce: {
    en: ["bouncing", "bouncing up and down"],
    zh: ["弹跳", "弹来弹去"],
    fit: 0.56,
    rest: 0.36,
    // Starts on the way up, so that the first frame is not the squashed one.
    pose: (p, v) => {
      const q = (p + 0.25) % 1;
      return { ...squashed(0.3 * v * (bump(q, 0, 0.34) - 0.3 * bump(q, 0.5, 0.9))), dy: 1.8 * v * q * (1 - q) };
    },
  },
  spin: {
    en: ["spinning", "turning round and round"],
    zh: ["旋转", "转圈"],
    fit: 0.68,
    rest: 0.5,
    pose: (p) => ({ turn: 360 * p }),
  },
  shake: {
    en: ["shaking", "trembling"],
    zh: ["抖动", "颤抖"],
    fit: 0.7,
    rest: 0.5,
    pose: (p, v) => ({ dx: 0.1 * v * sin(2 * p), turn: 7 * v * sin(3 * p) }),
  },
  pulse: {
    en: ["pulsing", "growing and shrinking"],
    zh: ["忽大忽小地变化", "放大缩小"],
    fit: 0.68,
    rest: 0.5,
    pose: (p, v) => ({ scaleX: 1 + 0.24 * v * sin(p), scaleY: 1 + 0.24 * v * sin(p) }),
  },
  slide: {
    en: ["sliding", "gliding"],
    zh: ["滑行", "滑动"],
    fit: 0.6,
    rest: 0.5,
    // One stage and a half of travel per loop: the copy enters while the first one leaves, so the stage is never empty.
    pose: (p) => ({ dx: 1.9 * p, copyDx: -1.9 }),
  },
  blink: {
    en: ["flashing", "flickering"],
    zh: ["闪烁", "一闪一闪"],
    fit: 0.7,
    rest: 0.5,
    pose: (p) => ({ fade: 0.42 - 0.42 * cos(p), scaleX: 1 + 0.02 * sin(p), scaleY: 1 + 0.02 * sin(p) }),
  },
  jump: {
    en: ["jumping", "leaping into the air"],
    zh: ["跳跃", "往上跳"],
    fit: 0.46,
    rest: 0.29,
    // Crouch, leap, hang, land: slower on the ground than a bounce, and twice as high.
    pose: (p, v) => {
      const up = Math.max(0, sin((p - 0.22) / 1.5));
      const crouch = bump(p, 0.12, 0.24) + 0.6 * bump(p, 0.94, 0.16);
      return { ...squashed(0.42 * v * crouch - 0.14 * bump(p, 0.4, 0.3)), dy: 0.96 * Math.min(v, 1.05) * up };
    },
  },
  swing: {
    en: ["swinging", "swinging from side to side"],
    zh: ["荡来荡去", "来回摆荡"],
    fit: 0.62,
    rest: 0.5,
    pose: (p, v) => ({ turn: 34 * v * sin(p), pivot: HEAD }),
  },
  float: {
    en: ["floating", "drifting"],
    zh: ["飘浮", "飘来飘去"],
    fit: 0.6,
    rest: 0.5,
    pose: (p, v) => ({ dx: 0.1 * v * cos(p), dy: 0.2 * v * sin(p), turn: 6 * v * cos(p + 0.1) }),
  },
  squash: {
    en: ["squashing and stretching", "squishing"],
    zh: ["伸缩弹动", "压扁又拉长"],
    fit: 0.56,
    rest: 0.4,
    pose: (p, v) => squashed(0.32 * v * sin(p) + 0.03),
  },
  flip: {
    en: ["flipping", "flipping over and over"],
    zh: ["翻转", "翻来翻去"],
    fit: 0.68,
    rest: 0.5,
    // Never thinner than a quarter: edge-on, the subject would vanish.
    pose: (p) => ({ scaleX: Math.sign(cos(p) || 1) * Math.max(0.25, Math.abs(cos(p))) }),
  },
  sway: {
    en: ["swaying", "rocking"],
    zh: ["摇摆", "左摇右晃"],
    fit: 0.6,
    rest: 0.48,
    pose: (p, v) => ({ turn: 22 * v * sin(p), pivot: FOOT }),
  },
} as const satisfies Readonly<Record<string, Action>>;

export type ActionId = keyof typeof ACTIONS;
export const ACTION_IDS = Object.keys(ACTIONS) as readonly ActionId[];

/** Frames are taken a little after k/n: a symmetric motion would otherwise repeat a frame for some n. */
const SHUTTER = 0.13;

/** The pose of `action` in frame k of n. */
export function poseAt(action: ActionId, k: number, n: number, vigour: number): Pose {
  return { ...REST, ...ACTIONS[action].pose((k + SHUTTER) / n, vigour) };
}

/** Blinking with eyelids, for subjects whose eyes are known: shut in the middle of the loop, breathing all along. */
export function eyelidPose(k: number, n: number): Pose {
  const p = (k + SHUTTER) / n;
  return { ...REST, lids: bump(p, 0.55, 0.85), scaleX: 1 + 0.025 * sin(p), scaleY: 1 - 0.025 * sin(p), pivot: FOOT };
}

const BEATING: Words = { en: ["beating", "beating softly"], zh: ["跳动", "怦怦跳"] };
const BLINKING: Words = { en: ["blinking", "blinking its eyes"], zh: ["眨眼", "眨眼睛"] };
const WAVING: Words = { en: ["waving", "waving from side to side"], zh: ["挥动", "左右挥动"] };

/** The words for `action` when a subject of `group` does it; `lids` when it blinks with eyelids. */
export function actionWords(action: ActionId, group: string, lids: boolean): Words {
  if (action === "pulse" && group === "heart") return BEATING;
  if (action === "blink" && lids) return BLINKING;
  if (action === "sway" && group === "hand") return WAVING;
  return ACTIONS[action];
}
