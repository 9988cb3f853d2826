// scheduler_config.json of diffusers: which noise schedule a model was trained on, what it predicts, and how that library
// would visit the steps. The class only says which sampler it would use; the schedule is read from any of them.

import type { NoiseScheduleOptions, Prediction } from "../diffusion.ts";
import type { PlanOptions } from "../samplers.ts";
import { ConfigReader } from "./reader.ts";

export interface SchedulerDescription {
  readonly prediction: Prediction;
  readonly schedule: NoiseScheduleOptions;
  /** Of its DDIM. */
  readonly plan: Pick<PlanOptions, "spacing" | "offset" | "end" | "next">;
}

/** That library's words for what is known here. */
export const BETAS = { linear: "linear", scaled_linear: "scaled-linear", squaredcos_cap_v2: "cosine" } as const;
export const PREDICTIONS = { epsilon: "epsilon", v_prediction: "v", sample: "sample" } as const;
export const SPACINGS = { leading: "leading", trailing: "trailing", linspace: "linspace" } as const;

/** Fields that are left out have the library's defaults. Throws ConfigError for what is not known here. */
export function readSchedulerConfig(json: unknown, label: string): SchedulerDescription {
  const r = new ConfigReader(json, label);
  for (const key of ["clip_sample", "thresholding", "use_karras_sigmas"]) r.only(key, false); // not of latents
  if (r.has("trained_betas")) r.refuse("trained_betas", "is not supported");
  const spacing = r.choice("timestep_spacing", SPACINGS, "leading");
  return {
    prediction: r.choice("prediction_type", PREDICTIONS, "epsilon"),
    schedule: {
      steps: r.count("num_train_timesteps", 1000),
      betas: r.choice("beta_schedule", BETAS, "linear"),
      range: [r.number("beta_start", 1e-4), r.number("beta_end", 0.02)],
      zeroTerminalSnr: r.flag("rescale_betas_zero_snr", false),
    },
    plan: {
      spacing,
      ...(spacing === "leading" ? { offset: r.number("steps_offset", 0) } : {}),
      end: r.flag("set_alpha_to_one", true) ? "clean" : "first",
      next: "stride",
    },
  };
}
