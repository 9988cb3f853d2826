// W11 in Gifgrad: a small GPT, trained, and sampled greedily with a key-value cache. Called by gifgrad/index.ts.

import { compile, type Device, Parameter, type Tensor, tensor } from "../../../engine/index.ts";
import { Attention, Embedding, LayerNorm, Linear, Module } from "../../../engine/nn/index.ts";
import { I } from "../data.ts";
import type { Subject } from "../subject.ts";
import { argmax, crossEntropy } from "./losses.ts";
import { compiled, loadInto, training } from "./run.ts";

const [width, heads, vocabulary, context] = [128, 4, 256, 256];

/** x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
function gelu(x: Tensor): Tensor {
  const inner = x
    .square()
    .mul(0.044715)
    .add(1)
    .mul(x)
    .mul(Math.sqrt(2 / Math.PI));
  return x.mul(inner.tanh().add(1)).mul(0.5);
}

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
    return this.m2.forward(gelu(this.m1.forward(this.n2.forward(x))));
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

/** Keys and values of the tokens so far, [length, width] each, and the attention of one token to them. */
class Cache {
  readonly #keys: Parameter;
  readonly #values: Parameter;

  constructor(length: number) {
    const empty = (): Parameter => new Parameter([length, width], new Float32Array(length * width));
    [this.#keys, this.#values] = [empty(), empty()];
  }

  /** x [1, width], the token at place `at` (i32 []) -> what it attends to, [1, width]. */
  attend(layer: Attention, x: Tensor, at: Tensor): Tensor {
    const length = this.#keys.shape[0];
    const place = x.arange(length).reshape([length, 1]);
    const store = (rows: Parameter, row: Tensor): Tensor => {
      rows.assign(place.equal(at).where(row, rows));
      return rows.reshape([length, heads, width / heads]);
    };
    const q = layer.toQ.forward(x).reshape([1, heads, width / heads]);
    const k = store(this.#keys, layer.toK.forward(x));
    const v = store(this.#values, layer.toV.forward(x));
    const scores = q
      .mul(k)
      .sum(-1)
      .mul((width / heads) ** -0.5); // [length, heads]
    const weights = at.less(place).where(-1e9, scores).transpose().softmax(); // [heads, length]
    const mixed = weights.transpose().reshape([length, heads, 1]).mul(v).sum(0); // [heads, width / heads]
    return layer.toOut[0].forward(mixed.reshape([1, width]));
  }
}

/** W11.sample: one compiled step per token; the cache, the last token and the ids stay on the device as state. */
export function sample(device: Device): Subject {
  const length = 64;
  const model = new Gpt();
  loadInto(model, "gpt");
  const caches = model.blocks.map(() => new Cache(length));
  const token = new Parameter([1], new Int32Array(1), { dtype: "i32" });
  const ids = new Parameter([length], new Int32Array(length), { dtype: "i32" });
  const step = compile(
    ({ place }: { place: Tensor }) => {
      const at = place.cast("i32");
      const input = at.equal(0).where(0, token); // token 0 starts
      let x = model.tok.forward(input).add(model.pos.forward(at.reshape([1])));
      model.blocks.forEach((block, i) => {
        x = x.add(caches[i].attend(block.a, block.n1.forward(x), at));
        x = x.add(block.mlp(x));
      });
      const next = argmax(model.head.forward(model.nf.forward(x)));
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
