// Golden ops of the group "pad": torch's F.pad, whose list of numbers starts at the last axis.

import { type PadMode, pad as padAxes } from "../../../engine/nn/padding.ts";
import type { OpTable } from "./op.ts";

const MODES: readonly PadMode[] = ["constant", "reflect", "replicate", "circular"];

export const pad: OpTable = {
  pad: (args, { x }) => {
    const list = args.numbers("pad");
    const mode = MODES.find((m) => m === args.text("mode", "constant"));
    if (!mode) throw new Error(`no padding mode "${args.text("mode")}" is known here`);
    const sides = x.shape.map((_, axis): [number, number] => {
      const at = 2 * (x.rank - 1 - axis);
      return [list[at] ?? 0, list[at + 1] ?? 0];
    });
    return padAxes(x, sides, { mode, value: args.number("value", 0) });
  },
};
