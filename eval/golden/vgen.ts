// Golden kind "vgen": the video UNets of VGen, text to video (UNetSD_T2VBase) and I2VGen-XL (UNetSD_I2VGen), under the names
// of their own files.

import type { Module } from "../../engine/nn/index.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { readVgenConfig, vgenLayout, vgenTensors } from "../../models/checkpoints/vgen.ts";
import type { UNetConfig } from "../../models/config.ts";
import { FrameRateEmbedding, I2VGenXLUNet, pictureFrames } from "../../models/i2vgen_xl.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import type { Check, Kind } from "./kind.ts";
import { type ModelFolder, type Network, openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const vgen: Kind = {
  name: "vgen",
  recognises: async (folder) => /^UNetSD_(T2VBase|I2VGen)$/.test(String((await peekConfig(folder))?.type)),
  run,
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const { unet, fps } = readVgenConfig(new ConfigReader(await folder.json("config.json"), "config.json"));
  yield* folder.checks(await (unet.image ? guided(folder, unet) : textToVideo(folder, unet, fps)));
}

async function textToVideo(folder: ModelFolder, config: UNetConfig, withRate: boolean): Promise<Network> {
  const unet = new VideoUNet(config);
  const rate = withRate ? new FrameRateEmbedding(config.channels[0]) : null;
  const [t, fps] = [folder.input("t"), folder.io.has("in.fps") ? folder.input("fps") : null];
  const outputs = ({ x, y }: Tensors): Tensors => ({
    eps: unet.forward(x, t, y, { time: rate && fps ? rate.forward(fps) : undefined }),
  });
  const weights = await loadWeights(folder, rate ? [unet, rate] : [unet], config);
  return { weights, inputs: inputs(folder, ["x", "y"]), outputs };
}

async function guided(folder: ModelFolder, config: UNetConfig): Promise<Network> {
  const unet = new I2VGenXLUNet(config);
  const [step, fps] = [folder.input("t"), folder.input("fps")];
  const outputs = ({ x, y, image, local_image: local }: Tensors): Tensors => {
    const frames = pictureFrames(firstFrame(local), x.shape[1]);
    const picture = { frames, vector: image.reshape([x.shape[0], -1]) };
    return { eps: unet.forward(x, step, y, { fps, picture }) };
  };
  const weights = await loadWeights(folder, [unet], config);
  return { weights, inputs: inputs(folder, ["x", "y", "local_image", "image"]), outputs };
}

/** A picture, or the first frame of a clip: [b, h, w, c]. */
function firstFrame(x: Tensor): Tensor {
  if (x.rank === 4) return x;
  const { b, h, w, c } = x.dims("b f h w c");
  return x.slice(1, 0, 1).reshape([b, h, w, c]);
}

function inputs(folder: ModelFolder, names: readonly string[]): Record<string, Tensor> {
  return Object.fromEntries(names.map((name) => [name, folder.input(name)]));
}

/** Fills the networks from the folder; their parameters by VGen's names. */
async function loadWeights(folder: ModelFolder, nets: readonly Module[], config: UNetConfig) {
  const state = new Map(nets.flatMap((net) => [...net.state()]));
  await folder.load(state, vgenLayout(state.keys(), config));
  const held = [...vgenTensors(state.keys(), config)];
  const parameters = held.map(([name, ours]) => [name, ours.map((key) => state.get(key)!)] as const);
  return new Map(parameters.map(([name, ps]) => [name, ps.length === 1 ? ps[0] : ps] as const));
}
