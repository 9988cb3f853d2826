// W9 and W10 in Gifgrad: a small UNet with a sequence of attention layers in the middle, on images or, with temporal layers
// after every residual block, on the frames of one clip; and the DDIM loop around it. Called by gifgrad/index.ts.

import { compile, type Device, type Tensor, tensor } from "../../../engine/index.ts";
import { Attention, Conv, GroupNorm, interpolate, LayerNorm, Linear, Module, mse } from "../../../engine/nn/index.ts";
import { channelsFirst, channelsLast, R } from "../data.ts";
import { ddimSchedule, UNET_STEPS, VIDEO_STEP } from "../diffusion.ts";
import type { Subject } from "../subject.ts";
import { compiled, loadInto, training } from "./run.ts";

const heads = 4;
const square = [3, 3];
const attention = (features: number, context = features): Attention =>
  new Attention(features, { heads, dim: features / heads, context, bias: true });

/** Convolution over frames and attention over frames, each at every position on its own. */
class Temporal extends Module {
  readonly tn: GroupNorm;
  readonly tc: Conv;
  readonly taN: LayerNorm;
  readonly ta: Attention;

  constructor(c: number) {
    super();
    this.tn = new GroupNorm(8, c);
    this.tc = new Conv(c, c, [3, 1], { padding: [1, 0] });
    this.taN = new LayerNorm(c);
    this.ta = attention(c);
  }

  /** [f, h, w, c] -> the same shape */
  forward(x: Tensor): Tensor {
    const { f, h, w, c } = x.dims("f h w c");
    const rows = this.tn
      .forward(x)
      .silu()
      .reshape([1, f, h * w, c]);
    const mixed = x.add(this.tc.forward(rows).reshape(x.shape));
    const tokens = mixed.rearrange("f h w c -> (h w) f c");
    return tokens.add(this.ta.forward(this.taN.forward(tokens))).rearrange("(h w) f c -> f h w c", { h });
  }
}

class Residual extends Module {
  readonly n1: GroupNorm;
  readonly c1: Conv;
  readonly t: Linear;
  readonly n2: GroupNorm;
  readonly c2: Conv;
  readonly s: Conv | null;
  readonly temporal: Temporal | null;

  constructor(inputs: number, outputs: number, temporal: boolean) {
    super();
    this.n1 = new GroupNorm(8, inputs);
    this.c1 = new Conv(inputs, outputs, square, { padding: 1 });
    this.t = new Linear(256, outputs);
    this.n2 = new GroupNorm(8, outputs);
    this.c2 = new Conv(outputs, outputs, square, { padding: 1 });
    this.s = inputs === outputs ? null : new Conv(inputs, outputs, [1, 1]);
    this.temporal = temporal ? new Temporal(outputs) : null;
  }

  /** x [b, h, w, i], time [b or 1, 256] -> [b, h, w, o] */
  forward(x: Tensor, time: Tensor): Tensor {
    const shift = this.t.forward(time.silu()); // [b, o]
    const h = this.c1.forward(this.n1.forward(x).silu()).add(shift.reshape([shift.shape[0], 1, 1, -1]));
    const y = (this.s?.forward(x) ?? x).add(this.c2.forward(this.n2.forward(h).silu()));
    return this.temporal?.forward(y) ?? y;
  }
}

/** [n] -> [n, 64]: cosines and sines of the step at 32 frequencies. */
function sinusoid(step: Tensor): Tensor {
  const frequencies = Float32Array.from({ length: 32 }, (_, i) => Math.exp((-Math.log(1e4) * i) / 32));
  const angle = step.reshape([-1, 1]).mul(tensor(frequencies)); // [n, 32]
  return angle.cos().concat([angle.sin()], 1);
}

class UNet extends Module {
  readonly t1 = new Linear(64, 256);
  readonly t2 = new Linear(256, 256);
  readonly in = new Conv(4, 64, square, { padding: 1 });
  readonly r0: Residual;
  readonly r1: Residual;
  readonly r2: Residual;
  readonly r3: Residual;
  readonly down = new Conv(64, 64, square, { stride: 2, padding: 1 });
  readonly saN = new LayerNorm(128);
  readonly sa = attention(128);
  readonly caN = new LayerNorm(128);
  readonly ca = attention(128, 64);
  readonly up = new Conv(128, 64, square, { padding: 1 });
  readonly on = new GroupNorm(8, 64);
  readonly out = new Conv(64, 4, square, { padding: 1 });

  constructor(temporal: boolean) {
    super();
    this.r0 = new Residual(64, 64, temporal);
    this.r1 = new Residual(64, 128, temporal);
    this.r2 = new Residual(128, 128, temporal);
    this.r3 = new Residual(128, 64, temporal);
  }

  /** x [b, h, w, 4], step [b] or [1], text [b, m, 64] -> [b, h, w, 4]; with temporal layers b counts the frames of one clip. */
  forward(x: Tensor, step: Tensor, text: Tensor): Tensor {
    const time = this.t2.forward(this.t1.forward(sinusoid(step)).silu());
    const h0 = this.r0.forward(this.in.forward(x), time);
    const h1 = this.r1.forward(this.down.forward(h0), time); // [b, h/2, w/2, 128]
    const tokens = h1.rearrange("b h w c -> b (h w) c");
    const own = tokens.add(this.sa.forward(this.saN.forward(tokens)));
    const told = own.add(this.ca.forward(this.caN.forward(own), text)).reshape(h1.shape);
    const h2 = this.r2.forward(told, time);
    const grown = this.up.forward(interpolate(h2, { size: x.shape.slice(1, 3) }));
    const h3 = this.r3.forward(grown.concat([h0], 3), time);
    return this.out.forward(this.on.forward(h3).silu());
  }
}

const latent = [8, 4, 16, 16];
const nhwc = [8, 16, 16, 4];
const images = (seed: number): Tensor => tensor(channelsLast(R(latent, seed, 1.7), latent), nhwc).keep();

/** W9 */
export function unet(device: Device): Subject {
  const model = new UNet(false);
  loadInto(model, "unet");
  const steps = tensor(UNET_STEPS).keep();
  const batch = { x: images(1), e: images(2), text: tensor(R([8, 16, 64], 3), [8, 16, 64]).keep(), steps };
  return training(device, model, batch, ({ x, e, text, steps: at }) => mse(model.forward(x, at, text), e));
}

const caption = (): Tensor => tensor(R([1, 16, 64], 3), [1, 16, 64]).keep();

/** W10.train: the eight images are the frames of one clip, with one step and one caption. */
export function videoUnet(device: Device): Subject {
  const model = new UNet(true);
  loadInto(model, "videoUnet");
  const batch = { x: images(1), e: images(2), text: caption(), step: tensor([VIDEO_STEP]).keep() };
  const loss = ({ x, e, text, step }: typeof batch): Tensor => mse(model.forward(x, step, text.expand([8, 16, 64])), e);
  return training(device, model, batch, loss);
}

/** W10.ddim: one compiled step that is fed its own result, 25 times; nothing is read in between. */
export function ddim(device: Device): Subject {
  const model = new UNet(true);
  loadInto(model, "videoUnet");
  const [start, text] = [images(5), caption()];
  const step = compile(
    ({ x, t, keep, add }: { x: Tensor; t: Tensor; keep: Tensor; add: Tensor }) => {
      const e = model.forward(x, t, text.expand([8, 16, 64]));
      return { x: x.mul(keep).add(e.mul(add)) };
    },
    { name: "ddim" },
  );
  let x = start;
  return {
    ...compiled(device, step as never),
    run: async () => {
      x = start;
      for (const { t, keep, add } of ddimSchedule()) x = step({ x, t, keep, add }).x;
      await device.settle();
      return undefined;
    },
    outputs: async () => ({ y: channelsFirst((await x.data()) as Float32Array, nhwc) }),
  };
}
