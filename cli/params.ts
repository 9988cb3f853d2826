// `gifgrad params`: how many parameters each system has at each preset, by component. Computed from the configurations: no
// weight is made and no device opened.

import { PRESETS } from "../models/config.ts";
import { type ComponentCount, countSystem, countSystems, SYSTEMS, type System } from "../models/systems.ts";
import type { ParamsOptions } from "./options.ts";

/** Prints one table per system, or one JSON list. */
export function run({ json, system, preset }: ParamsOptions): void {
  const names = system ? [system] : undefined;
  const presets = preset ? [preset] : PRESETS;
  if (json) {
    console.log(JSON.stringify(countSystems(names, presets), null, 2));
    return;
  }
  for (const one of SYSTEMS.filter(({ name }) => !names || names.includes(name))) printTable(one, presets);
}

/** Rows: components and their parts; columns: presets. */
function printTable(system: System, presets: typeof PRESETS): void {
  const counts = presets.map((preset) => countSystem(system, preset));
  const rows: [label: string, numbers: readonly (number | undefined)[]][] = [];
  const components = new Set(counts.flatMap((c) => Object.keys(c.components)));
  for (const component of components) {
    const found = counts.map((c): ComponentCount | undefined => c.components[component]);
    rows.push([component, found.map((c) => c?.count)]);
    const parts = new Set(found.flatMap((c) => Object.keys(c?.parts ?? {})));
    for (const part of parts.size > 1 ? parts : []) rows.push([`  ${part}`, found.map((c) => c?.parts[part])]);
  }
  rows.push(["total", counts.map((c) => c.total)]);
  const beyond = new Set(counts.flatMap((c) => Object.keys(c.beyond)));
  for (const part of beyond) rows.push([`not in it: ${part}`, counts.map((c) => c.beyond[part])]);
  console.log(`${system.title} (${system.name}): told ${system.conditions}`);
  console.log(line("", presets));
  for (const [label, numbers] of rows)
    console.log(
      line(
        label,
        numbers.map((n) => n?.toLocaleString("en") ?? "-"),
      ),
    );
  console.log();
}

function line(label: string, cells: readonly string[]): string {
  return `  ${label.padEnd(32)}${cells.map((cell) => cell.padStart(15)).join("")}`;
}
