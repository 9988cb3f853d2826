// W8 to W12 in jax-js, in its own layout (batch and channels first). Called by jax.ts.

import { jit, nn, numpy as np, tree } from "@jax-js/jax";
import { I, R } from "../data.ts";
import { ddimSchedule, UNET_STEPS, VIDEO_STEP } from "../diffusion.ts";
import { loadParams } from "../params.ts";
import type { Subject } from "../subject.ts";
import {
  type A,
  add,
  array,
  concat,
  conv,
  crossEntropy,
  double,
  layerNorm,
  linear,
  matmul,
  mha,
  mse,
  mul,
  norm,
  type Params,
  paramsOf,
  reshape,
  silu,
  square,
  stop,
  sub,
  sum,
  transpose,
} from "./jax_ops.ts";
import { type Device, settle, training } from "./jax_run.ts";

const input = (shape: readonly number[], seed: number, scale = 1): A => array(R(shape, seed, scale), shape);
const oneHot = (index: A, classes: number): A => nn.oneHot(index.ref, classes);

function mlp(): Subject {
  const loss = (p: Params, { x, label }: Params): A => {
    const h = nn.relu(linear(p, "l2", nn.relu(linear(p, "l1", x))));
    return crossEntropy(linear(p, "l3", h), oneHot(label, 10));
  };
  return training("mlp", { x: input([256, 784], 1), label: array(I(256, 10, 2), [256]) }, loss, 0);
}

// ---- the UNets

/** [n] -> [n, 64] */
function sinusoid(step: A): A {
  const frequencies = array(
    Float32Array.from({ length: 32 }, (_, i) => Math.exp((-Math.log(1e4) * i) / 32)),
    [1, 32],
  );
  const angle = mul(reshape(step, [-1, 1]), frequencies);
  return concat([np.cos(angle.ref), np.sin(angle.ref)], 1);
}

/** x [f, c, h, w]: convolution over frames, then attention over frames. */
function temporal(p: Params, name: string, x: A): A {
  const [f, c, h, w] = x.shape;
  const rows = reshape(transpose(silu(norm(p, `${name}.tn`, x)), [1, 0, 2, 3]), [1, c, f, h * w]);
  const mixed = transpose(reshape(conv(p, `${name}.tc`, rows, [1, 0]), [c, f, h, w]), [1, 0, 2, 3]);
  const tokens = transpose(reshape(add(x, mixed), [f, c, h * w]), [2, 0, 1]); // [h w, f, c]
  const n = layerNorm(p, `${name}.ta_n`, tokens);
  return reshape(transpose(add(tokens, mha(p, `${name}.ta`, n, n)), [1, 2, 0]), x.shape);
}

function residual(p: Params, name: string, x: A, time: A): A {
  const shift = linear(p, `${name}.t`, silu(time));
  const h = add(
    conv(p, `${name}.c1`, silu(norm(p, `${name}.n1`, x)), [1, 1]),
    reshape(shift, [-1, shift.shape[1], 1, 1]),
  );
  const straight = p[`${name}.s.w`] ? conv(p, `${name}.s`, x, [0, 0]) : x;
  const y = add(straight, conv(p, `${name}.c2`, silu(norm(p, `${name}.n2`, h)), [1, 1]));
  return p[`${name}.tn.g`] ? temporal(p, name, y) : y;
}

/** x [b, 4, h, w], step [b] or [1], text [b, m, 64] */
function unet(p: Params, x: A, step: A, text: A): A {
  const time = linear(p, "t2", silu(linear(p, "t1", sinusoid(step))));
  const h0 = residual(p, "r0", conv(p, "in", x, [1, 1]), time);
  const h1 = residual(p, "r1", conv(p, "down", h0, [1, 1], 2), time);
  const tokens = transpose(reshape(h1, [h1.shape[0], h1.shape[1], -1]), [0, 2, 1]);
  const n = layerNorm(p, "sa_n", tokens);
  const own = add(tokens, mha(p, "sa", n, n));
  const told = add(own, mha(p, "ca", layerNorm(p, "ca_n", own), text));
  const h2 = residual(p, "r2", reshape(transpose(told, [0, 2, 1]), h1.shape), time);
  const h3 = residual(p, "r3", concat([conv(p, "up", double(h2), [1, 1]), h0], 1), time);
  return conv(p, "out", silu(norm(p, "on", h3)), [1, 1]);
}

const latent = [8, 4, 16, 16];
const repeated = (text: A): A => np.broadcastTo(text.ref, [8, 16, 64]);

function images(): Subject {
  const step = array(Float32Array.from(UNET_STEPS), [8]);
  const batch = { x: input(latent, 1, 1.7), e: input(latent, 2, 1.7), text: input([8, 16, 64], 3), step };
  return training("unet", batch, (p, b) => mse(unet(p, b.x, b.step, b.text), b.e));
}

function video(): Subject {
  const step = array(Float32Array.of(VIDEO_STEP), [1]);
  const batch = { x: input(latent, 1, 1.7), e: input(latent, 2, 1.7), text: input([1, 16, 64], 3), step };
  return training("videoUnet", batch, (p, b) => mse(unet(p, b.x, b.step, repeated(b.text)), b.e));
}

function ddim(device: Device): Subject {
  const p = paramsOf(loadParams("videoUnet"));
  const [start, text] = [input(latent, 5, 1.7), input([1, 16, 64], 3)];
  const step = jit(
    (q: Params, x: A, t: A, c: A, keep: A, more: A): A => add(mul(x, keep), mul(unet(q, x, t, repeated(c)), more)),
  );
  let x = start.ref;
  return {
    run: async () => {
      x.dispose();
      x = start.ref;
      for (const { t, keep, add: more } of ddimSchedule())
        x = step(tree.ref(p) as Params, x, np.array([t]), text.ref, np.array(keep), np.array(more));
      await settle(device, [x]);
      return undefined;
    },
    outputs: async () => ({ y: (await x.ref.data()) as Float32Array }),
  };
}

// ---- GPT

function block(p: Params, name: string, x: A, attend: (x: A) => A): A {
  const y = add(x, attend(layerNorm(p, `${name}.n1`, x)));
  const h = nn.gelu(linear(p, `${name}.m1`, layerNorm(p, `${name}.n2`, y)), { approximate: true });
  return add(y, linear(p, `${name}.m2`, h));
}

const layers = ["l0", "l1", "l2", "l3"];

function gpt(): Subject {
  const text = I(4 * 257, 256, 1);
  const rows = (from: number): A =>
    array(
      Int32Array.from({ length: 1024 }, (_, i) => text[Math.floor(i / 256) * 257 + (i % 256) + from]),
      [4, 256],
    );
  const loss = (p: Params, { input: ids, target }: Params): A => {
    // The gradient of a lookup cannot be compiled: a product with one-hot rows instead.
    let x = add(matmul(oneHot(ids, 256), p.tok), p.pos);
    const mask = np.where(np.tri(256, 256, 0, { dtype: np.bool }), 0, -1e9);
    for (const name of layers) x = block(p, name, x, (h) => mha(p, `${name}.a`, h, h, mask));
    const logits = linear(p, "head", layerNorm(p, "nf", x));
    return crossEntropy(reshape(logits, [1024, 256]), oneHot(reshape(target, [1024]), 256));
  };
  return training("gpt", { input: rows(0), target: rows(1) }, loss);
}

/** One compiled step per token, on a cache of fixed size that a one-hot row selects the place of. */
function sample(device: Device): Subject {
  const length = 64;
  const p = paramsOf(loadParams("gpt"));
  const step = jit((q: Params, caches: Params, token: A, ids: A, place: A): [Params, A, A] => {
    const here = oneHot(place, length); // [1, 64]
    const row = reshape(here, [1, 1, length, 1]);
    const mask = mul(np.greater(np.arange(length), place.ref).astype(np.float32), -1e9); // [64]
    const next: Params = {};
    const heads = (x: A): A => transpose(reshape(x, [1, 1, 4, 32]), [0, 2, 1, 3]);
    let x = add(matmul(oneHot(token, 256), q.tok), matmul(oneHot(place, 256), q.pos)); // [1, 128]
    for (const name of layers)
      x = block(q, name, x, (h) => {
        for (const kind of ["k", "v"]) {
          const old = caches[name + kind];
          next[name + kind] = add(old, mul(row, sub(heads(linear(q, `${name}.a.${kind}`, h)), old)));
        }
        const scores = mul(
          matmul(heads(linear(q, `${name}.a.q`, h)), transpose(next[`${name}k`], [0, 1, 3, 2])),
          32 ** -0.5,
        );
        const mixed = matmul(nn.softmax(add(scores, mask), -1), next[`${name}v`]); // [1, 4, 1, 32]
        return linear(q, `${name}.a.o`, reshape(mixed, [1, 128]));
      });
    const best = np.argmax(linear(q, "head", layerNorm(q, "nf", x)), -1).astype(np.int32); // [1]
    const hot = reshape(here, [length]).astype(np.int32);
    return [next, best.ref, add(ids, mul(hot, sub(best, ids)))];
  });
  let ids = array(new Int32Array(length), [length]);
  return {
    run: async () => {
      let token = array(new Int32Array(1), [1]);
      let caches: Params = Object.fromEntries(
        layers.flatMap((l) => ["k", "v"].map((kind) => [l + kind, np.zeros([1, 4, length, 32])])),
      );
      for (let i = 0; i < length; i++)
        [caches, token, ids] = step(
          tree.ref(p) as Params,
          caches,
          token,
          ids,
          array(Int32Array.of(i), [1]),
        ) as unknown as [Params, A, A];
      token.dispose();
      tree.dispose(caches);
      await ids.ref.data();
      if (device === "webgpu") await settle(device, [ids]);
      return undefined;
    },
    outputs: async () => ({ y: (await ids.ref.data()) as Int32Array }),
  };
}

// ---- VQ-VAE

function vqvae(): Subject {
  const cube = [1, 1, 1];
  const loss = (p: Params, { x }: Params): A => {
    const z = conv(p, "e3", silu(conv(p, "e2", silu(conv(p, "e1", x, cube, 2)), cube, 2)), cube); // [2, 32, 2, 8, 8]
    const flat = reshape(transpose(stop(z), [0, 2, 3, 4, 1]), [256, 32]);
    const codes = stop(p.code);
    const products = mul(matmul(flat, transpose(codes, [1, 0])), 2);
    const distance = add(sub(sum(square(flat), -1, true), products), sum(square(codes), -1));
    const rows = matmul(oneHot(np.argmin(distance, -1), 256), p.code);
    const q = transpose(reshape(rows, [2, 2, 8, 8, 32]), [0, 4, 1, 2, 3]);
    const through = add(z, stop(sub(q, z)));
    const y = conv(p, "d3", double(silu(conv(p, "d2", double(silu(conv(p, "d1", through, cube))), cube))), cube);
    return add(add(mse(y, x), mse(q, stop(z))), mul(mse(z, stop(q)), 0.25));
  };
  return training("vqvae", { x: input([2, 3, 8, 32, 32], 1) }, loss);
}

export const models: Readonly<Record<string, (device: Device) => Subject>> = {
  W8: mlp,
  W9: images,
  "W10.train": video,
  "W10.ddim": ddim,
  "W11.train": gpt,
  "W11.sample": sample,
  W12: vqvae,
};
