// The alarm of a codebook that collapses: when nearly all vectors choose a few codes, the others carry nothing, and a prior
// over them learns nothing. Called by train/vqvae.ts with each step's perplexity.

export interface CollapseOptions {
  /** How many codes there are. */
  readonly codes: number;
  /** Perplexity below this share of the codes is a bad step. Default 0.05. */
  readonly share?: number;
  /** Bad steps in a row before it rings. Default 50. */
  readonly patience?: number;
}

/**
 * Rings once when perplexity, exp of the entropy of a batch's use of the codes, has been below a share of the codes for so
 * many steps in a row; and may ring again after a good step. One that is broken (NaN) counts as bad. Counts from the
 * step that a run is resumed at.
 */
export class CollapseAlarm {
  readonly #floor: number;
  readonly #codes: number;
  readonly #patience: number;
  #bad = 0;

  constructor({ codes, share = 0.05, patience = 50 }: CollapseOptions) {
    this.#codes = codes;
    this.#floor = share * codes;
    this.#patience = patience;
  }

  /** The line to say after `step`; null when all is well, or has been said. */
  hear(step: number, perplexity: number): string | null {
    this.#bad = perplexity >= this.#floor ? 0 : this.#bad + 1;
    if (this.#bad !== this.#patience) return null;
    const used = perplexity.toPrecision(3);
    return `the codebook is collapsing: at step ${step} perplexity is ${used} of ${this.#codes} codes, and below ${this.#floor.toPrecision(3)} for ${this.#patience} steps. Usual causes: the learning rate is too high (halve --lr), the batch is too small, or the stickers are nearly all alike`;
  }
}
