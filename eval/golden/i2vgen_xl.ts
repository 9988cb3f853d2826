// Golden kind "i2vgen-xl": diffusers' I2VGenXLUNet. Its frames of the picture come as stored, positions and all.

import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { readI2VGenXLConfig } from "../../models/checkpoints/unet.ts";
import { I2VGenXLUNet } from "../../models/i2vgen_xl.ts";
import type { Check, Kind } from "./kind.ts";
import { openModelFolder, peekConfig } from "./model.ts";

export const i2vgenXl: Kind = {
  name: "i2vgen-xl",
  recognises: async (folder) => (await peekConfig(folder))?._class_name === "I2VGenXLUNet",
  run,
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const unet = new I2VGenXLUNet(readI2VGenXLConfig(new ConfigReader(await folder.json("config.json"), "config.json")));
  await folder.load(unet.state());
  const [step, fps] = [folder.input("timestep"), folder.input("fps")];
  const names = ["sample", "encoder_hidden_states", "image_latents", "image_embeddings"];
  yield* folder.checks({
    weights: unet.state(),
    inputs: Object.fromEntries(names.map((name) => [name, folder.input(name)])),
    outputs: ({ sample, encoder_hidden_states: text, image_latents: frames, image_embeddings: vector }) => ({
      sample: unet.forward(sample, step, text, { fps, picture: { frames, vector } }),
    }),
  });
}
