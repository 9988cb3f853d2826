// The numbers that the VSD2M paper prints (arXiv 2412.08259), to stand beside ours. Null is its dash. Nothing is computed here;
// where which of them may be compared is decided in tables.ts.

import type { SystemName } from "../../models/config.ts";
import type { Metric } from "../score.ts";
import type { TestName } from "./result.ts";

export type PaperColumn = Readonly<Partial<Record<string, number | null>>>;

/** One column by system, in the order of the paper's rows. */
function column(...values: readonly (number | null)[]): PaperColumn {
  const rows: readonly SystemName[] = ["videogpt", "make-a-video", "videoldm", "videofactory", "i2vgen-xl", "sti"];
  return Object.fromEntries(rows.map((name, i) => [name, values[i]]));
}

type Scores = Readonly<Record<TestName, Readonly<Record<Metric, PaperColumn>>>>;

/** Table 4: each system trained on the stickers of one domain. */
export const SEPARATE: Scores = {
  "VSD-R": {
    vqa: column(0.189, 0.475, 0.436, 0.48, 0.481, 0.487),
    fvd: column(2645.02, 2661.99, 2629.48, 2638.97, 2623.47, 2613.41),
    clip: column(null, 0.213, 0.334, 0.223, 0.349, 0.345),
  },
  "VSD-C": {
    vqa: column(0.287, 0.378, 0.457, 0.495, 0.493, 0.511),
    fvd: column(5887.49, 5846.75, 5822.87, 5611.73, 5570.24, 5513.64),
    clip: column(null, 0.159, 0.169, 0.139, 0.174, 0.172),
  },
};

/** Table 4, its last columns: seconds of one sticker on a V100, and parameters. */
export const SECONDS = column(193.34, 11.34, 11.64, 11.87, 13.12, 11.71);
export const PARAMETERS = column(0.102e9, 1.835e9, 1.835e9, 1.847e9, 2.489e9, 1.856e9);

/** Table 7: each system trained on both domains. */
export const JOINT: Scores = {
  "VSD-R": {
    vqa: column(0.226, 0.491, 0.454, 0.494, 0.483, 0.503),
    fvd: column(2780.44, 2636.68, 2589.86, 2605.7, 2573.82, 2550.11),
    clip: column(null, 0.204, 0.311, 0.266, 0.319, 0.314),
  },
  "VSD-C": {
    vqa: column(0.233, 0.447, 0.457, 0.535, 0.552, 0.557),
    fvd: column(5731.82, 5824.31, 5822.32, 5716.4, 5621.12, 5503.57),
    clip: column(null, 0.185, 0.191, 0.126, 0.201, 0.193),
  },
};

/** Table 5: the paper's own system trained on other sets, by the set's name. */
export const TRAINING_SETS: Readonly<Record<TestName, Readonly<Record<"vqa" | "fvd", PaperColumn>>>> = {
  "VSD-R": { vqa: { TGIF: 0.394, VSD2M: 0.487 }, fvd: { TGIF: 3310.25, VSD2M: 2613.41 } },
  "VSD-C": { vqa: { SER30K: 0.372, VSD2M: 0.511 }, fvd: { SER30K: 5813.47, VSD2M: 5513.64 } },
};

/** Table 6: what the systems compared with are. */
export const METHODS: Readonly<Partial<Record<string, readonly [string, string, string]>>> = {
  videogpt: ["arXiv 2021", "Transformer-based", "Berkeley"],
  "make-a-video": ["ICLR 2023", "Diffusion-based", "Meta AI"],
  videoldm: ["CVPR 2023", "Diffusion-based", "NVIDIA"],
  videofactory: ["arXiv 2023", "Diffusion-based", "Microsoft"],
  "i2vgen-xl": ["arXiv 2023", "Diffusion-based", "Alibaba"],
};
