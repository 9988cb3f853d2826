// W1 to W7 in Gifgrad: one op, or a few, and their gradients. The operands are Parameters, that is memory on the device
// that a call neither copies nor may take for constant. Called by gifgrad/index.ts.

import { compile, type Device, type Named, Parameter, type Tensor, vjp } from "../../../engine/index.ts";
import { GroupNorm } from "../../../engine/nn/index.ts";
import { channelsFirst, channelsLast, kernelFirst, kernelLast, numel, R } from "../data.ts";
import type { Subject } from "../subject.ts";
import { compiled } from "./run.ts";

type Back = (data: Float32Array, shape: readonly number[]) => Float32Array;

const input = (shape: readonly number[], seed: number, scale = 1): Parameter =>
  new Parameter(shape, R(shape, seed, scale));

/** Compiles `step`; `layouts` brings results back into the workload's layout. */
function micro(device: Device, step: () => Named, layouts: Readonly<Record<string, Back>> = {}): Subject {
  const program = compile(step, { name: "micro" });
  let last: Named = {};
  return {
    ...compiled(device, program),
    run: async () => {
      last = program({});
      await device.settle();
      return undefined;
    },
    outputs: async () => {
      const read = async ([name, t]: [string, Tensor]): Promise<[string, Float32Array]> => {
        const data = (await t.data()) as Float32Array;
        return [name, layouts[name]?.(data, t.shape) ?? data];
      };
      return Object.fromEntries(await Promise.all(Object.entries(last).map(read)));
    },
  };
}

function product(device: Device, a: readonly number[], b: readonly number[]): Subject {
  const [x, y] = [input(a, 1), input(b, 2)];
  return micro(device, () => ({ y: x.matmul(y) }));
}

function convolution(device: Device, backward: boolean): Subject {
  const [xs, ws] = [
    [8, 64, 32, 32],
    [64, 64, 3, 3],
  ];
  const x = new Parameter([8, 32, 32, 64], channelsLast(R(xs, 1), xs));
  const w = new Parameter([3, 3, 64, 64], kernelLast(R(ws, 2, 1 / 24), ws));
  const r = new Parameter([8, 32, 32, 64], channelsLast(R(xs, 3), xs));
  const step = (): Named => {
    const y = x.conv(w, { padding: 1 });
    if (!backward) return { y };
    const [dx, dw] = vjp(y, [x, w], r);
    return { y, dx, dw };
  };
  return micro(device, step, { y: channelsFirst, dx: channelsFirst, dw: kernelFirst });
}

function attention(device: Device, tokens: number, backward: boolean): Subject {
  const shape = [16, tokens, 1, 32]; // one head
  const [q, k, v, r] = [input(shape, 1, 2), input(shape, 2, 2), input(shape, 3, 2), input(shape, 4)];
  return micro(device, (): Named => {
    const y = q.attention(k, v);
    if (!backward) return { y };
    const [dq, dk, dv] = vjp(y, [q, k, v], r);
    return { y, dq, dk, dv };
  });
}

function groupNorm(device: Device): Subject {
  const shape = [8, 64, 32, 32];
  const norm = new GroupNorm(8, 64);
  norm.weight.write(R([64], 2));
  norm.bias.write(R([64], 3));
  const x = new Parameter([8, 32, 32, 64], channelsLast(R(shape, 1), shape));
  const r = new Parameter([8, 32, 32, 64], channelsLast(R(shape, 4), shape));
  const step = (): Named => {
    const y = norm.forward(x).silu();
    const [dx, dg, db] = vjp(y, [x, norm.weight, norm.bias], r);
    return { y, dx, dg, db };
  };
  return micro(device, step, { y: channelsFirst, dx: channelsFirst });
}

function softmax(device: Device): Subject {
  const [x, r] = [input([4096, 512], 1, 4), input([4096, 512], 2)];
  return micro(device, () => {
    const y = x.softmax();
    const [dx] = vjp(y, [x], r);
    return { y, dx };
  });
}

function elementwise(device: Device): Subject {
  const x = input([4194304], 1);
  return micro(device, () => ({ y: x.mul(1.1).add(0.3).sigmoid().mul(x).exp().add(x).relu().mul(0.5) }));
}

function sums(device: Device, shape: readonly number[]): Subject {
  const x = input(shape, 1);
  return micro(device, () => ({ y: numel(shape) === shape[0] ? x.sum() : x.sum(1) }));
}

export const micros: Readonly<Record<string, (device: Device) => Subject>> = {
  "W1.512": (d) => product(d, [512, 512], [512, 512]),
  "W1.1024": (d) => product(d, [1024, 1024], [1024, 1024]),
  W1b: (d) => product(d, [32, 256, 64], [32, 64, 256]),
  "W2.fwd": (d) => convolution(d, false),
  "W2.fb": (d) => convolution(d, true),
  "W3.fwd": (d) => attention(d, 256, false),
  "W3.fb": (d) => attention(d, 256, true),
  "W3b.fwd": (d) => attention(d, 1024, false),
  "W3b.fb": (d) => attention(d, 1024, true),
  W4: groupNorm,
  W5: softmax,
  W6: elementwise,
  "W7.full": (d) => sums(d, [4194304]),
  "W7.row": (d) => sums(d, [4096, 1024]),
};
