// Golden kind "unet": diffusers' UNet2DConditionModel, the image network of Stable Diffusion 2. A picture is a clip of one
// frame here. Besides a batch the folder has a picture of odd size, and the output for weights rounded to 16 bits.

import type { Tensor } from "../../engine/tensor.ts";
import { readUNetConfig } from "../../models/checkpoints/unet.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import { exists, need, readJson, readTensors } from "./files.ts";
import { type Check, compare, type Kind } from "./kind.ts";
import { openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const unet: Kind = {
  name: "unet",
  recognises: async (folder) => (await peekConfig(folder))?._class_name === "UNet2DConditionModel",
  run,
};

const HALF = { weights: "weights.fp16.safetensors", io: "io_fp16_weights.safetensors" };

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const { config, temporal } = readUNetConfig(await readJson(path, "config.json"), "config.json");
  const made = new VideoUNet(config, { temporal });
  const step = folder.input("timestep");
  /** Pictures [b, h, w, c], the steps and texts of the first `b` of the batch. */
  const answer = (pictures: Tensor, text: Tensor): Tensor => {
    const [b, ...picture] = pictures.shape;
    const clips = pictures.reshape([b, 1, ...picture]);
    return made.forward(clips, step.slice(0, 0, b), text.slice(0, 0, b)).reshape([b, ...picture.slice(0, -1), -1]);
  };
  const inputs = { sample: folder.input("sample"), encoder_hidden_states: folder.input("encoder_hidden_states") };
  const odd = folder.io.has("in.sample_odd") ? folder.input("sample_odd") : null;
  const outputs = ({ sample, encoder_hidden_states: text }: Tensors): Tensors => ({
    sample: answer(sample, text),
    ...(odd ? { sample_odd: answer(odd, text) } : {}),
  });

  await folder.load(made.state());
  yield* folder.checks({ weights: made.state(), inputs, outputs });
  if (!(await exists(path, HALF.weights))) return;
  await folder.load(made.state(), undefined, HALF.weights);
  const { shape, data } = need(await readTensors(path, HALF.io), "out.sample");
  const got = await answer(inputs.sample, inputs.encoder_hidden_states).permute([0, 3, 1, 2]).data();
  const label = `${HALF.weights}: out.sample [${shape}]`;
  yield compare(label, got, data, folder.bound("out.sample"));
}
