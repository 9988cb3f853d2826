// Golden kind "make-a-video": the layers of Make-A-Video's own paper, each a module of its own under a prefix of the weights
// ("conv.", "attn.", "resnet." ...), with and without their part over time, on videos and on single pictures.

import type { Module } from "../../engine/nn/index.ts";
import type { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import {
  PseudoConv,
  PseudoDownsample,
  PseudoResidualBlock,
  PseudoUpsample,
  SpaceTimeAttention,
  timeSinusoids,
} from "../../models/pseudo3d.ts";
import { need, readJson } from "./files.ts";
import { type Check, type Kind, TWO_ULPS } from "./kind.ts";
import { openModelFolder, peekConfig, type Tensors } from "./model.ts";

interface ConvConfig {
  readonly dim: number;
  readonly dim_out: number;
  readonly kernel_size: number;
  readonly temporal_kernel_size?: number;
}
interface AttentionConfig {
  readonly dim: number;
  readonly dim_head: number;
  readonly heads: number;
  readonly ff_mult?: number;
  readonly add_feed_forward?: boolean;
  readonly pos_bias?: boolean;
  readonly causal_time_attn?: boolean;
}
interface Config {
  readonly conv: ConvConfig;
  readonly conv1: ConvConfig;
  readonly attn: AttentionConfig;
  readonly attn_noff: AttentionConfig;
  readonly resnet: { readonly dim: number; readonly dim_out: number; readonly timestep_cond_dim: number };
  readonly down: { readonly dim: number; readonly downsample_space?: boolean; readonly downsample_time?: boolean };
  readonly up: { readonly dim: number; readonly upsample_space?: boolean; readonly upsample_time?: boolean };
}

const MODULES = ["conv", "conv1", "attn", "attn_noff", "resnet", "down", "up"];

export const makeAVideo: Kind = {
  name: "make-a-video",
  recognises: async (folder) => {
    const config = await peekConfig(folder);
    return config !== null && MODULES.every((name) => typeof config[name] === "object");
  },
  run,
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const layers = makeLayers(await readJson<Config>(path, "config.json"));
  const modules = Object.entries(layers) as [string, Module][];
  const weights = new Map(
    modules.flatMap(([prefix, m]) => [...m.state()].map(([name, p]): [string, Parameter] => [`${prefix}.${name}`, p])),
  );
  await folder.load(weights);
  const inputs = ["video5", "image5", "feat", "feat_even", "temb"].map((name) => [name, folder.input(name)] as const);
  const net = { weights, inputs: Object.fromEntries(inputs), outputs: (x: Tensors) => outputs(layers, x) };
  const except = (name: string): boolean => name === SINUSOIDS;
  yield* folder.checks(net, { except });
  if (!folder.io.has(SINUSOIDS)) return;
  const { shape } = need(folder.io, SINUSOIDS);
  const rows = timeSinusoids(need(folder.io, "in.timesteps").data, shape[1]);
  yield folder.check(SINUSOIDS, await rows.data(), undefined, TWO_ULPS);
}

/** No tolerance is stored for it: the same float32 numbers, but for a unit in the last place of exp, sin and cos. */
const SINUSOIDS = "out.sinusoidal";

interface Layers {
  readonly conv: PseudoConv;
  readonly conv1: PseudoConv;
  readonly attn: SpaceTimeAttention;
  readonly attn_noff: SpaceTimeAttention;
  readonly resnet: PseudoResidualBlock;
  readonly down: PseudoDownsample;
  readonly up: PseudoUpsample;
}

/** Absent options are those of the published classes. */
function makeLayers(c: Config): Layers {
  const conv = (o: ConvConfig): PseudoConv =>
    new PseudoConv(o.dim, o.dim_out, o.kernel_size, o.temporal_kernel_size ?? o.kernel_size);
  const attention = (o: AttentionConfig): SpaceTimeAttention =>
    new SpaceTimeAttention(o.dim, {
      heads: o.heads,
      dim: o.dim_head,
      feedForward: (o.add_feed_forward ?? true) ? (o.ff_mult ?? 4) : null,
      positionBias: o.pos_bias ?? true,
      causal: o.causal_time_attn ?? false,
    });
  return {
    conv: conv(c.conv),
    conv1: conv(c.conv1),
    attn: attention(c.attn),
    attn_noff: attention(c.attn_noff),
    resnet: new PseudoResidualBlock(c.resnet.dim, c.resnet.dim_out, c.resnet.timestep_cond_dim),
    down: new PseudoDownsample(c.down.dim, {
      space: c.down.downsample_space ?? true,
      time: c.down.downsample_time ?? false,
    }),
    up: new PseudoUpsample(c.up.dim, { space: c.up.upsample_space ?? true, time: c.up.upsample_time ?? false }),
  };
}

const STILL = { time: false };

/** A picture is a video of one frame without time. */
function outputs(l: Layers, { video5, image5, feat, feat_even, temb }: Tensors): Tensors {
  const video = (picture: Tensor): Tensor => picture.reshape([picture.shape[0], 1, ...picture.shape.slice(1)]);
  return {
    conv_video: l.conv.forward(video5),
    conv_image: l.conv.forward(video(image5), STILL),
    conv_notime: l.conv.forward(video5, STILL),
    conv1: l.conv1.forward(feat),
    attn: l.attn.forward(feat),
    attn_notime: l.attn.forward(feat, STILL),
    attn_image: l.attn.forward(feat.slice(1, 0, 1), STILL),
    attn_noff: l.attn_noff.forward(feat),
    resnet: l.resnet.forward(feat, temb),
    resnet_notime: l.resnet.forward(feat, temb, STILL),
    down: l.down.forward(feat_even),
    up: l.up.forward(feat_even),
  };
}
