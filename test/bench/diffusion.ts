// The diffusion steps of W9 and W10, the same for every framework.

export const UNET_STEPS: readonly number[] = [37, 162, 287, 412, 537, 662, 787, 912];
export const VIDEO_STEP = 500;

/** x' = sqrt(ap) (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - ap) e as keep x + add e, for t = 960, 920, ..., 0. */
export function ddimSchedule(): { t: number; keep: number; add: number }[] {
  const alphaBar: number[] = [];
  for (let i = 0; i < 1000; i++) alphaBar.push((alphaBar[i - 1] ?? 1) * (1 - (1e-4 + (i * (0.02 - 1e-4)) / 999)));
  return Array.from({ length: 25 }, (_, i) => {
    const t = 960 - 40 * i;
    const [a, ap] = [alphaBar[t], alphaBar[t - 40] ?? 1];
    return { t, keep: Math.sqrt(ap / a), add: Math.sqrt(1 - ap) - Math.sqrt((ap * (1 - a)) / a) };
  });
}
