// Golden kind "unet3d": diffusers' UNet3DConditionModel, and that network with the temporal layers of STI or VideoLDM ("sti"
// or "mix" in its configuration). Such folders have further outputs for extreme values of the scalars that mix branches.

import type { Parameter } from "../../engine/state.ts";
import { readUNetConfig } from "../../models/checkpoints/unet.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import { readJson } from "./files.ts";
import type { Check, Kind } from "./kind.ts";
import { openModelFolder, peekConfig } from "./model.ts";

export const unet3d: Kind = {
  name: "unet3d",
  recognises: async (folder) => (await peekConfig(folder))?._class_name === "UNet3DConditionModel",
  run,
};

/** Output -> value of each scalar that its last name begins with. sigmoid(100) is 1 in float32. */
const EXTREMES: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  "out.sample_w01": { w1: 0, w2: 1 },
  "out.sample_p0": { mix: 0 },
  "out.sample_a1": { mix: 100 },
  "out.sample_a0": { mix: -100 },
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const { config, temporal } = readUNetConfig(await readJson(path, "config.json"), "config.json");
  const made = new VideoUNet(config, { temporal });
  await folder.load(made.state());
  const step = folder.input("timestep");
  const inputs = { sample: folder.input("sample"), encoder_hidden_states: folder.input("encoder_hidden_states") };
  yield* folder.checks(
    {
      weights: made.state(),
      inputs,
      outputs: (x) => ({ sample: made.forward(x.sample, step, x.encoder_hidden_states) }),
    },
    { except: (name) => name in EXTREMES },
  );
  for (const name of Object.keys(EXTREMES).filter((key) => folder.io.has(key))) {
    setScalars(made.state(), EXTREMES[name]);
    const y = made.forward(inputs.sample, step, inputs.encoder_hidden_states);
    yield folder.check(name, await y.data());
  }
}

function setScalars(state: ReadonlyMap<string, Parameter>, values: Readonly<Record<string, number>>): void {
  for (const [name, p] of state) {
    const value = values[name.slice(name.lastIndexOf(".") + 1)];
    if (value !== undefined) p.write([value]);
  }
}
