// W11 in Gifgrad: a small GPT, trained, and sampled greedily with a key-value cache. Called by gifgrad/index.ts.

import { compile, type Device, Parameter, type Tensor, tensor } from "../../../engine/index.ts";
import {
  Attention,
  argmax,
  crossEntropy,
  Embedding,
  geluTanh,
  LayerNorm,
  Linear,
  Module,
} from "../../../engine/nn/index.ts";
import { I } from "../data.ts";
import type { Subject } from "../subject.ts";
import { compiled, loadInto, training } from "./run.ts";

const [width, heads, vocabulary, context] = [128, 4, 256, 256];

class Block extends Module {
  readonly n1 = new LayerNorm(width);
  readonly a = new Attention(width, { heads, dim: width / heads, bias: true });
  readonly n2 = new LayerNorm(width);
  readonly m1 = new Linear(width, 4 * width);
  readonly m2 = new Linear(4 * width, width);

  /** [b, n, width] -> the same shape */
  forward(x: Tensor): Tensor {
    const y = x.add(this.a.forward(this.n1.forward(x), undefined, { causal: true }));
    return y.add(this.mlp(y));
  }

  mlp(x: Tensor): Tensor {
    return this.m2.forward(geluTanh(this.m1.forward(this.n2.forward(x))));
  }
}

class Gpt extends Module {
  readonly tok = new Embedding(vocabulary, width);
  readonly pos = new Embedding(context, width);
  readonly l0 = new Block();
  readonly l1 = new Block();
  readonly l2 = new Block();
  readonly l3 = new Block();
  readonly nf = new LayerNorm(width);
  readonly head = new Linear(width, vocabulary, { bias: false });

  get blocks(): readonly Block[] {
    return [this.l0, this.l1, this.l2, this.l3];
  }

  /** i32 [b, n] -> logits [b, n, vocabulary] */
  forward(ids: Tensor): Tensor {
    const places = this.pos.weight.slice(0, 0, ids.shape[1]);
    const x = this.blocks.reduce((h, block) => block.forward(h), this.tok.forward(ids).add(places));
    return this.head.forward(this.nf.forward(x));
  }
}

/** W11.train: four rows of 257 tokens, each token to be told from those before it. */
export function gpt(device: Device): Subject {
  const model = new Gpt();
  loadInto(model, "gpt");
  const text = tensor(I(4 * 257, 256, 1), [4, 257]);
  const batch = { input: text.slice(1, 0, 256).keep(), target: text.slice(1, 1, 257).keep() };
  return training(device, model, batch, ({ input, target }) =>
    crossEntropy(model.forward(input).reshape([-1, vocabulary]), target.reshape([-1])),
  );
}

/** One row through a linear layer: [1, in] -> [1, out]. */
function row(x: Tensor, weight: Tensor, bias: Tensor | null): Tensor {
  const y = x.matmul(weight.transpose());
  return bias ? y.add(bias) : y;
}

/** A block that sees one token at a time and remembers the keys and values of those before it. */
class CachedBlock {
  readonly #block: Block;
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  /** Keys and values side by side, [length, 2 width]. */
  readonly #cache: Parameter;

  constructor(block: Block, length: number) {
    const { toQ, toK, toV } = block.a;
    this.#block = block;
    this.#weight = toQ.weight.concat([toK.weight, toV.weight], 0).keep();
    this.#bias = (toQ.bias as Tensor).concat([toK.bias as Tensor, toV.bias as Tensor], 0).keep();
    this.#cache = new Parameter([length, 2 * width], new Float32Array(length * 2 * width));
  }

  /** x [1, width], the token at place `at` (i32 []) -> the same shape */
  forward(x: Tensor, at: Tensor): Tensor {
    const { n2, m1, m2, a } = this.#block;
    const y = x.add(row(this.#attend(x, at), a.toOut[0].weight, a.toOut[0].bias));
    return y.add(row(geluTanh(row(n2.forward(y), m1.weight, m1.bias)), m2.weight, m2.bias));
  }

  #attend(x: Tensor, at: Tensor): Tensor {
    const [length, dim] = [this.#cache.shape[0], width / heads];
    const qkv = row(this.#block.n1.forward(x), this.#weight, this.#bias); // [1, 3 width]
    const place = x.arange(length);
    const fresh = place.equal(at).reshape([length, 1]);
    this.#cache.assign(fresh.where(qkv.slice(1, width), this.#cache));
    const [k, v] = [0, width].map((from) =>
      this.#cache.slice(1, from, from + width).rearrange("n (h d) -> h n d", { h: heads }),
    );
    const scores = qkv
      .slice(1, 0, width)
      .reshape([heads, 1, dim])
      .mul(k)
      .sum(-1)
      .mul(dim ** -0.5); // [heads, length]
    const weights = at.less(place).where(-1e9, scores).softmax();
    return weights.reshape([heads, length, 1]).mul(v).sum(1).reshape([1, width]);
  }
}

/** W11.sample: one compiled step per token; the cache, the last token and the ids stay on the device as state. */
export function sample(device: Device): Subject {
  const length = 64;
  const model = new Gpt();
  loadInto(model, "gpt");
  const blocks = model.blocks.map((block) => new CachedBlock(block, length));
  const token = new Parameter([1], new Int32Array(1), { dtype: "i32" });
  const ids = new Parameter([length], new Int32Array(length), { dtype: "i32" });
  const step = compile(
    ({ place }: { place: Tensor }) => {
      const at = place.cast("i32");
      const input = at.equal(0).where(0, token); // token 0 starts
      const embedded = model.tok.forward(input).add(model.pos.forward(at.reshape([1])));
      const x = blocks.reduce((h, block) => block.forward(h, at), embedded);
      const next = argmax(row(model.nf.forward(x), model.head.weight, null), -1);
      token.assign(next);
      ids.assign(ids.arange(length).equal(at).where(next, ids));
      return {};
    },
    { name: "token" },
  );
  return {
    ...compiled(device, step as never),
    run: async () => {
      for (let place = 0; place < length; place++) step({ place });
      await ids.data();
      return undefined;
    },
    outputs: async () => ({ y: await ids.data() }),
  };
}
