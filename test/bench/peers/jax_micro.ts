// W1 to W7 in jax-js. Called by jax.ts.

import { lax, nn, numpy as np, vjp } from "@jax-js/jax";
import { R } from "../data.ts";
import type { Subject } from "../subject.ts";
import { type A, add, array, attention, groupNorm, matmul, mul, silu, sum } from "./jax_ops.ts";
import { type Device, fixed } from "./jax_run.ts";

const input = (shape: readonly number[], seed: number, scale = 1): A => array(R(shape, seed, scale), shape);

/** y and, given a cotangent as the last argument, the gradients of `f`. */
function both(f: (...args: A[]) => A): (...args: A[]) => A[] {
  return (...args) => {
    const [y, pull] = vjp(f, args.slice(0, -1).map((a) => a.ref) as never);
    return [y as A, ...(pull(args[args.length - 1].ref as never) as A[])];
  };
}

function convolution(device: Device, backward: boolean): Subject {
  const [x, w, r] = [input([8, 64, 32, 32], 1), input([64, 64, 3, 3], 2, 1 / 24), input([8, 64, 32, 32], 3)];
  const f = (a: A, b: A): A =>
    lax.convGeneralDilated(
      a.ref,
      b.ref,
      [1, 1],
      [
        [1, 1],
        [1, 1],
      ],
    );
  return backward
    ? fixed(device, both(f), [x, w, r], ["y", "dx", "dw"])
    : fixed(device, (a, b) => [f(a, b)], [x, w], ["y"]);
}

function attentions(device: Device, tokens: number, backward: boolean): Subject {
  const shape = [16, tokens, 32];
  const qkv = [1, 2, 3].map((seed) => input(shape, seed, 2));
  const f = (q: A, k: A, v: A): A => attention(q, k, v);
  return backward
    ? fixed(device, both(f), [...qkv, input(shape, 4)], ["y", "dq", "dk", "dv"])
    : fixed(device, (q, k, v) => [f(q, k, v)], qkv, ["y"]);
}

function product(device: Device, a: readonly number[], b: readonly number[]): Subject {
  return fixed(device, (x, y) => [matmul(x, y)], [input(a, 1), input(b, 2)], ["y"]);
}

export const micros: Readonly<Record<string, (device: Device) => Subject>> = {
  "W1.512": (d) => product(d, [512, 512], [512, 512]),
  "W1.1024": (d) => product(d, [1024, 1024], [1024, 1024]),
  W1b: (d) => product(d, [32, 256, 64], [32, 64, 256]),
  "W2.fwd": (d) => convolution(d, false),
  "W2.fb": (d) => convolution(d, true),
  "W3.fwd": (d) => attentions(d, 256, false),
  "W3.fb": (d) => attentions(d, 256, true),
  "W3b.fwd": (d) => attentions(d, 1024, false),
  "W3b.fb": (d) => attentions(d, 1024, true),
  W4: (d) => {
    const shape = [8, 64, 32, 32];
    const args = [input(shape, 1), input([64], 2), input([64], 3), input(shape, 4)];
    return fixed(
      d,
      both((x, g, b) => silu(groupNorm(g, b, x))),
      args,
      ["y", "dx", "dg", "db"],
    );
  },
  W5: (d) =>
    fixed(
      d,
      both((x) => nn.softmax(x.ref, -1)),
      [input([4096, 512], 1, 4), input([4096, 512], 2)],
      ["y", "dx"],
    ),
  W6: (d) => {
    const f = (x: A): A => {
      const gate = nn.sigmoid(add(mul(x, 1.1), 0.3));
      return mul(nn.relu(add(np.exp(mul(gate, x)), x)), 0.5);
    };
    return fixed(d, (x) => [f(x)], [input([4194304], 1)], ["y"]);
  },
  "W7.full": (d) => fixed(d, (x) => [sum(x)], [input([4194304], 1)], ["y"]),
  "W7.row": (d) => fixed(d, (x) => [sum(x, 1)], [input([4096, 1024], 1)], ["y"]),
};
