// The table of workloads: what each is called, how much arithmetic it is, what kind of result it has. The definitions in
// words are in README.md; each framework's own code is in gifgrad/ and peers/.

/** micro: tensors out. train: a loss per step. loop: many forward passes, then tensors out. host: of Gifgrad alone. */
export type Kind = "micro" | "train" | "loop" | "host";

export interface Workload {
  readonly id: string;
  readonly kind: Kind;
  readonly title: string;
  /** Of one execution; matrix products and convolutions only in models, 2 per multiply-add. */
  readonly flops: number;
}

const w = (id: string, kind: Kind, flops: number, title: string): Workload => ({ id, kind, flops, title });

export const WORKLOADS: readonly Workload[] = [
  w("W1.512", "micro", 268435456, "matrix product 512"),
  w("W1.1024", "micro", 2147483648, "matrix product 1024"),
  w("W1b", "micro", 268435456, "32 matrix products 256 x 64 x 256"),
  w("W2.fwd", "micro", 603979776, "convolution 3x3, 8 x 64 x 32 x 32"),
  w("W2.fb", "micro", 1811939328, "the same with both gradients"),
  w("W3.fwd", "micro", 134217728, "attention, 256 tokens"),
  w("W3.fb", "micro", 402653184, "the same with gradients"),
  w("W3b.fwd", "micro", 2147483648, "attention, 1024 tokens"),
  w("W3b.fb", "micro", 6442450944, "the same with gradients"),
  w("W4", "micro", 15728640, "group norm and SiLU, forward and backward"),
  w("W5", "micro", 18874368, "softmax of rows, forward and backward"),
  w("W6", "micro", 33554432, "eight elementwise ops on 4M numbers"),
  w("W7.full", "micro", 4194304, "sum of 4M numbers"),
  w("W7.row", "micro", 4194304, "sums of 4096 rows"),
  w("W8", "train", 1027080192, "MLP, train step"),
  w("W9", "train", 5438177280, "small UNet, train step"),
  w("W10.train", "train", 6885212160, "video UNet, train step"),
  w("W10.ddim", "loop", 57376768000, "video UNet, 25 DDIM steps"),
  w("W11.train", "train", 6643777536, "GPT, train step"),
  w("W11.sample", "loop", 109117440, "GPT, 64 greedy tokens with a KV cache"),
  w("W12", "train", 1233518592, "3-D convolutional VQ-VAE, train step"),
  w("host", "host", 0, "a replayed step of 500 small dispatches"),
];

/** Ids that a list such as "W1,W9" names: a name stands for itself and for all that continue it after a dot. */
export function select(only: string): Workload[] {
  const names = only.split(",").filter((n) => n !== "");
  for (const n of names)
    if (!WORKLOADS.some(({ id }) => matches(id, n)))
      throw new Error(`--only: there is no workload ${n}; there are ${WORKLOADS.map(({ id }) => id).join(", ")}`);
  return WORKLOADS.filter(({ id }) => names.length === 0 || names.some((n) => matches(id, n)));
}

function matches(id: string, name: string): boolean {
  return id === name || id.startsWith(`${name}.`);
}
