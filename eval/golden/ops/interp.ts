// Golden ops of the group "interp": torch's F.interpolate in all its modes.

import { type InterpolateMode, interpolate } from "../../../engine/nn/interpolate.ts";
import { channelsLast, channelsSecond, type OpTable } from "./op.ts";

/** torch's mode -> ours, and the number of spatial axes that torch takes it for. */
const MODES: Readonly<Record<string, InterpolateMode>> = {
  nearest: "nearest",
  "nearest-exact": "nearest-exact",
  linear: "linear",
  bilinear: "linear",
  trilinear: "linear",
  bicubic: "cubic",
  area: "area",
};

export const interp: OpTable = {
  interpolate: (args, { x }) => {
    const each = (name: string): number | readonly number[] | undefined =>
      args.raw(name) === undefined ? undefined : args.each(name);
    const name = args.text("mode", "nearest");
    const mode = MODES[name];
    if (!mode) throw new Error(`no interpolation mode "${name}" is known here`);
    const y = interpolate(channelsLast(x), {
      mode,
      size: each("size"),
      scaleFactor: each("scale_factor"),
      recomputeScaleFactor: args.flag("recompute_scale_factor"),
      alignCorners: args.flag("align_corners"),
      antialias: args.flag("antialias"),
    });
    return channelsSecond(y);
  },
};
