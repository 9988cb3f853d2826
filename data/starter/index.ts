// The procedural starter set, as others see it: plan recipes, word them, draw them, write a whole set.
// Called by the `starter` command, by `npm start` and by reports.

export { ACTION_IDS, type ActionId } from "./actions.ts";
export { type Captions, captionsOf, triggerWordsOf } from "./captions.ts";
export { type Pair, pairsOf } from "./cast.ts";
export { type StickerFrames, stickerFrames } from "./frames.ts";
export { type PlanOptions, planStarter, type Recipe } from "./plan.ts";
export { type StarterOptions, writeStarter } from "./write.ts";
