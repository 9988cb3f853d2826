// W8 to W12 in TensorFlow.js, channels last. Called by tfjs.ts.

import * as tf from "@tensorflow/tfjs-core";
import { channelsFirst, I } from "../data.ts";
import { ddimSchedule, UNET_STEPS, VIDEO_STEP } from "../diffusion.ts";
import type { Subject } from "../subject.ts";
import {
  array,
  attention,
  conv,
  crossEntropy,
  image,
  input,
  joinHeads,
  layerNorm,
  linear,
  mha,
  mse,
  norm,
  type Params,
  paramsOf,
  settle,
  silu,
  splitHeads,
  stop,
  type T,
  training,
} from "./tfjs_ops.ts";

function mlp(): Subject {
  const [x, label] = [input([256, 784], 1), array(I(256, 10, 2), [256])];
  const loss = (p: Params): tf.Scalar =>
    crossEntropy(linear(p, "l3", tf.relu(linear(p, "l2", tf.relu(linear(p, "l1", x))))), label);
  return training("mlp", loss, 0);
}

// ---- the UNets

const frequencies = Float32Array.from({ length: 32 }, (_, i) => Math.exp((-Math.log(1e4) * i) / 32));

/** x [f, h, w, c]: convolution over frames, then attention over frames. */
function temporal(p: Params, name: string, x: T): T {
  const [f, h, w, c] = x.shape;
  const rows = tf.reshape(silu(norm(p, `${name}.tn`, x)), [1, f, h * w, c]);
  const mixed = tf.add(x, tf.reshape(conv(p, `${name}.tc`, rows), x.shape));
  const tokens = tf.transpose(tf.reshape(mixed, [f, h * w, c]), [1, 0, 2]);
  const n = layerNorm(p, `${name}.ta_n`, tokens);
  const attended = tf.add(tokens, mha(p, `${name}.ta`, n, n));
  return tf.reshape(tf.transpose(attended, [1, 0, 2]), x.shape);
}

function residual(p: Params, name: string, x: T, time: T): T {
  const shift = linear(p, `${name}.t`, silu(time));
  const h = tf.add(
    conv(p, `${name}.c1`, silu(norm(p, `${name}.n1`, x))),
    tf.reshape(shift, [-1, 1, 1, shift.shape[1] as number]),
  );
  const y = tf.add(
    p[`${name}.s.w`] ? conv(p, `${name}.s`, x) : x,
    conv(p, `${name}.c2`, silu(norm(p, `${name}.n2`, h))),
  );
  return p[`${name}.tn.g`] ? temporal(p, name, y) : y;
}

const onePixel: [number, number][] = [
  [0, 0],
  [1, 1],
  [1, 1],
  [0, 0],
];

/** x [b, h, w, 4], step [b, 1] or [1, 1], text [b, m, 64] */
function unet(p: Params, x: T, step: T, text: T): T {
  const angle = tf.mul(step, array(frequencies, [1, 32]));
  const time = linear(p, "t2", silu(linear(p, "t1", tf.concat([tf.cos(angle), tf.sin(angle)], 1))));
  const h0 = residual(p, "r0", conv(p, "in", x), time);
  const h1 = residual(p, "r1", conv(p, "down", h0, onePixel, 2), time);
  const tokens = tf.reshape(h1, [h1.shape[0], -1, h1.shape[3] as number]);
  const n = layerNorm(p, "sa_n", tokens);
  const own = tf.add(tokens, mha(p, "sa", n, n));
  const told = tf.add(own, mha(p, "ca", layerNorm(p, "ca_n", own), text));
  const h2 = residual(p, "r2", tf.reshape(told, h1.shape), time);
  const grown = tf.image.resizeNearestNeighbor(h2 as tf.Tensor4D, [16, 16]);
  const h3 = residual(p, "r3", tf.concat([conv(p, "up", grown), h0], 3), time);
  return conv(p, "out", silu(norm(p, "on", h3)));
}

const latent = [8, 4, 16, 16];

function images(): Subject {
  const [x, e, text] = [image(latent, 1, 1.7), image(latent, 2, 1.7), input([8, 16, 64], 3)];
  const step = array(Float32Array.from(UNET_STEPS), [8, 1]);
  return training("unet", (p) => mse(unet(p, x, step, text), e));
}

const caption = (): T => tf.tile(input([1, 16, 64], 3), [8, 1, 1]);

function video(): Subject {
  const [x, e, text] = [image(latent, 1, 1.7), image(latent, 2, 1.7), caption()];
  const step = array(Float32Array.of(VIDEO_STEP), [1, 1]);
  return training("videoUnet", (p) => mse(unet(p, x, step, text), e));
}

function ddim(): Subject {
  const p = paramsOf("videoUnet");
  const [start, text] = [image(latent, 5, 1.7), caption()];
  let last = start.clone();
  return {
    run: async () => {
      last.dispose();
      last = start.clone();
      for (const { t, keep, add } of ddimSchedule()) {
        const next = tf.tidy(() =>
          tf.add(tf.mul(last, keep), tf.mul(unet(p, last, array(Float32Array.of(t), [1, 1]), text), add)),
        );
        last.dispose();
        last = next;
      }
      await settle();
      return undefined;
    },
    outputs: async () => ({ y: channelsFirst((await last.data()) as Float32Array, last.shape) }),
  };
}

// ---- GPT

const layers = ["l0", "l1", "l2", "l3"];

function gelu(x: T): T {
  const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
  return tf.mul(tf.mul(x, tf.add(tf.tanh(inner), 1)), 0.5);
}

function block(p: Params, name: string, x: T, attend: (x: T) => T): T {
  const y = tf.add(x, attend(layerNorm(p, `${name}.n1`, x)));
  return tf.add(y, linear(p, `${name}.m2`, gelu(linear(p, `${name}.m1`, layerNorm(p, `${name}.n2`, y)))));
}

function gpt(): Subject {
  const text = I(4 * 257, 256, 1);
  const rows = (from: number, shape: readonly number[]): T =>
    array(
      Int32Array.from({ length: 1024 }, (_, i) => text[Math.floor(i / 256) * 257 + (i % 256) + from]),
      shape,
    );
  const [ids, target] = [rows(0, [4, 256]), rows(1, [1024])];
  const future = Float32Array.from({ length: 65536 }, (_, i) => (i % 256 > Math.floor(i / 256) ? -1e9 : 0));
  const mask = array(future, [256, 256]);
  return training("gpt", (p) => {
    let x: T = tf.add(tf.gather(p.tok, ids), p.pos);
    for (const name of layers) x = block(p, name, x, (h) => mha(p, `${name}.a`, h, h, mask));
    return crossEntropy(tf.reshape(linear(p, "head", layerNorm(p, "nf", x)), [1024, 256]), target);
  });
}

/** The cache grows by one row per token. */
function sample(): Subject {
  const p = paramsOf("gpt");
  let ids: T = array(new Int32Array(64), [64]);
  /** Appends to `caches`; kept tensors are the caller's to dispose of. */
  const next = (caches: Record<string, T>, token: T, place: number): { caches: Record<string, T>; token: T } =>
    tf.tidy(() => {
      const grown: Record<string, T> = {};
      const append = (name: string, row: T): T => {
        grown[name] = caches[name] ? tf.concat([caches[name], row], 2) : row;
        return grown[name];
      };
      let x: T = tf.reshape(tf.add(tf.gather(p.tok, token), tf.slice(p.pos, [place, 0], [1, 128])), [1, 1, 128]);
      for (const name of layers)
        x = block(p, name, x, (h) => {
          const [q, k, v] = ["q", "k", "v"].map((part) => splitHeads(linear(p, `${name}.a.${part}`, h)));
          const mixed = attention(q, append(`${name}k`, k), append(`${name}v`, v));
          return linear(p, `${name}.a.o`, joinHeads(mixed));
        });
      const logits = linear(p, "head", layerNorm(p, "nf", x));
      return { caches: grown, token: tf.argMax(tf.reshape(logits, [1, 256]), -1) };
    });
  return {
    run: async () => {
      ids.dispose();
      let caches: Record<string, T> = {};
      let token: T = array(new Int32Array(1), [1]);
      const found: T[] = [];
      for (let place = 0; place < 64; place++) {
        const after = next(caches, token, place);
        tf.dispose(caches);
        if (place === 0) token.dispose();
        ({ caches, token } = after);
        found.push(token);
      }
      ids = tf.concat(found);
      tf.dispose([caches, found] as never);
      await ids.data();
      return undefined;
    },
    outputs: async () => ({ y: (await ids.data()) as Int32Array }),
  };
}

// ---- VQ-VAE. On tensors of rank 5 only convolutions and elementwise ops of equal shapes: broadcasting kernels of that rank
// are invalid WGSL in this back end, and their results silently zeros.

function conv3d(p: Params, name: string, x: T, stride = 1): T {
  const w = p[`${name}.w`] as T as tf.Tensor5D;
  // "same" pads an even size by (0, 1) when the stride is 2; the workload pads by (1, 1).
  const padded = stride === 1 ? x : padOnes(x);
  const y = tf.conv3d(padded as tf.Tensor5D, w, stride, stride === 1 ? "same" : "valid");
  const c = y.shape[4];
  return tf.reshape(tf.add(tf.reshape(y, [-1, c]), p[`${name}.b`]), y.shape);
}

/** One zero before and after depth, height and width, through rank 4. */
function padOnes(x: T): T {
  const [b, d, h, w, c] = x.shape as [number, number, number, number, number];
  const plane = tf.pad(tf.reshape(x, [b * d, h, w, c]), onePixel);
  const [tall, wide] = [h + 2, w + 2];
  const sides: [number, number][] = [
    [0, 0],
    [1, 1],
    [0, 0],
  ];
  return tf.reshape(tf.pad(tf.reshape(plane, [b, d, tall * wide * c]), sides), [b, d + 2, tall, wide, c]);
}

/** Nearest neighbour, twice the size along depth, height and width, through rank 4. */
function double(x: T): T {
  const [b, d, h, w, c] = x.shape as [number, number, number, number, number];
  const plane = tf.image.resizeNearestNeighbor(tf.reshape(x, [b * d, h, w, c]) as tf.Tensor4D, [2 * h, 2 * w]);
  const deep = tf.reshape(plane, [b, d, 4 * h * w, c]) as tf.Tensor4D;
  return tf.reshape(tf.image.resizeNearestNeighbor(deep, [2 * d, 4 * h * w]), [b, 2 * d, 2 * h, 2 * w, c]);
}

/**
 * The nearest code of each row of z: argmin |z|^2 - 2 z e + |e|^2. Gradients go to the chosen codes alone; written out,
 * because the gradient of a lookup does not accept an index that was computed from variables.
 */
const nearest = tf.customGrad((...args) => {
  const [z, codes, save] = args as unknown as [T, T, tf.GradSaveFunc];
  const products = tf.mul(tf.matMul(z, codes, false, true), 2);
  const distance = tf.add(tf.sub(tf.sum(tf.square(z), -1, true), products), tf.sum(tf.square(codes), -1));
  const index = tf.argMin(distance, -1) as tf.Tensor1D;
  save([index]);
  const gradFunc = (dy: T, saved: T[]): T[] => [
    tf.zerosLike(dy),
    tf.unsortedSegmentSum(dy, saved[0] as tf.Tensor1D, codes.shape[0]),
  ];
  return { value: tf.gather(codes, index), gradFunc };
});

function vqvae(): Subject {
  const shape = [2, 3, 8, 32, 32];
  const x = image(shape, 1);
  return training("vqvae", (p) => {
    const z = conv3d(p, "e3", silu(conv3d(p, "e2", silu(conv3d(p, "e1", x, 2)), 2)));
    const flat = tf.reshape(z, [256, 32]);
    const q = nearest(flat, p.code);
    const through = tf.reshape(tf.add(flat, stop(tf.sub(q, flat))), z.shape);
    const y = conv3d(p, "d3", double(silu(conv3d(p, "d2", double(silu(conv3d(p, "d1", through)))))));
    const total = tf.add(mse(y, x), mse(q, stop(flat)));
    return tf.add(total, tf.mul(mse(flat, stop(q)), 0.25)) as tf.Scalar;
  });
}

export const models: Readonly<Record<string, () => Subject>> = {
  W8: mlp,
  W9: images,
  "W10.train": video,
  "W10.ddim": ddim,
  "W11.train": gpt,
  "W11.sample": sample,
  W12: vqvae,
};
