// What check:deep says: a line while it runs, and the count at its end. Called by main.ts.

import type { State } from "./state.ts";

const number = (n: number): string => n.toLocaleString("en");

export function failuresOf(state: State): number {
  return Object.values(state.checks).reduce((sum, t) => sum + t.failures.length, 0);
}

export function progress(state: State, done: number, total: number, rate: number, what: string): string {
  const failures = failuresOf(state);
  const share = ((100 * done) / total).toFixed(1);
  const left = rate > 0 ? `, ${duration((total - done) / rate)} left` : "";
  return `${number(done)} of ${number(total)} cases (${share} %), ${failures} failures, ${rate.toFixed(0)}/s${left}; ${what}`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Cases per subject and law, what was skipped, and every failure with its seed and smallest counterexample. */
export function summary(state: State): string {
  const bySubject = new Map<string, number>();
  const byLaw = new Map<string, number>();
  const skipped = new Map<string, number>();
  const runs = new Map<string, number>();
  const failures: string[] = [];
  for (const [key, tally] of Object.entries(state.checks)) {
    const [subject, law] = [key.slice(0, key.indexOf(": ")), key.slice(key.indexOf(": ") + 2)];
    bySubject.set(subject, (bySubject.get(subject) ?? 0) + tally.cases);
    byLaw.set(law, (byLaw.get(law) ?? 0) + tally.cases);
    for (const [reason, n] of Object.entries(tally.skipped))
      skipped.set(`${law}: ${reason}`, (skipped.get(`${law}: ${reason}`) ?? 0) + n);
    for (const [variant, n] of Object.entries(tally.runs)) runs.set(`${subject}/${variant}`, n);
    for (const f of tally.failures) failures.push(`${key}\n  ${f.message}\n  (seed ${f.seed}, ${f.cases} cases)`);
  }
  const rows = (counts: ReadonlyMap<string, number>): string[] =>
    [...counts].map(([name, n]) => `  ${name.padEnd(64)} ${number(n).padStart(10)}`);
  const total = [...byLaw.values()].reduce((a, b) => a + b, 0);
  return [
    "Cases by subject:",
    ...rows(bySubject),
    "Cases by law:",
    ...rows(byLaw),
    ...(skipped.size > 0 ? ["Of these, cases that say nothing:", ...rows(skipped)] : []),
    ...(runs.size > 0 ? ["Runs by variant:", ...rows(runs)] : []),
    ...(failures.length > 0 ? ["Failures:", ...failures] : []),
    `${number(total)} cases, ${failures.length} failures, seed ${state.seed}`,
  ].join("\n");
}
