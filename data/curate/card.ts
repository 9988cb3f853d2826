// The data card: what a data set is, where it comes from and under which licences, in the form that Hugging Face shows (YAML
// header, then Markdown). Written beside every export.

import type { CurateConfig } from "./config.ts";
import type { TABLE_3 } from "./paper.ts";
import type { Stats } from "./stats.ts";

export function dataCard(stats: Stats, { sources, filter }: CurateConfig): string {
  const languages = stats.facts.language.includes("Cn") ? ["en", "zh"] : ["en"];
  const percent = (name: keyof typeof TABLE_3): string => {
    const value = stats.table3[name];
    return value === null || value === undefined
      ? "unknown"
      : name.endsWith("ratio")
        ? `${(100 * value).toFixed(1)} %`
        : value.toFixed(1);
  };
  return `---
pretty_name: ${JSON.stringify(stats.name)}
language: [${languages.join(", ")}]
task_categories: [text-to-video, text-to-image]
tags: [stickers, gif]
size_categories: [${sizeCategory(stats.stickers)}]
---

# ${stats.name}

${stats.stickers} stickers with descriptions, made with Gifgrad's \`dataset build\`.

| | |
|---|---|
| animated | ${percent("multi_frame_ratio")} |
| with text on the picture | ${percent("optical_character_ratio")} |
| cartoon | ${percent("cartoon_ratio")} |
| frames, mean | ${percent("average_frames")} |
| trigger words, mean | ${percent("average_trigger_words")} |
| characters of a description, mean | ${percent("average_description_length")} |

## Splits

${lines(stats.splits)}

VSD-R and VSD-C are test sets: a sticker for each of the most frequent trigger words of its domain. Stickers that look like a
test sticker are in no split. \`held-out\` are pairs of subject and action that training does not show together.

## Sources, licences, attribution

${sources.map((source) => `- **${source.name}** (${source.type}): ${source.license || "licence not stated"}${source.attribution ? `; ${source.attribution}` : ""}`).join("\n")}

Licences as the stickers themselves state them (a sticker's own \`license\` and \`attribution\` are in its record):

${stats.licenses.map(([name, n]) => `- ${name}: ${n}`).join("\n")}

## What was left out

${lines(Object.fromEntries(Object.entries(stats.filter).filter(([verdict]) => verdict !== "kept")))}

Limits: at most ${filter.maxTextCharacters} characters of text or ${100 * filter.maxTextArea} % of the area under it, entropy of at least
${filter.minEntropy} bits, sides of at most ${filter.maxAspect} : 1, near duplicates up to ${filter.nearDuplicateBits} of 256 bits.
`;
}

function lines(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, n]) => `- ${name}: ${n}`)
    .join("\n");
}

/** Hugging Face's names. */
function sizeCategory(n: number): string {
  const bounds: readonly (readonly [number, string])[] = [
    [1e3, "n<1K"],
    [1e4, "1K<n<10K"],
    [1e5, "10K<n<100K"],
    [1e6, "100K<n<1M"],
    [1e7, "1M<n<10M"],
  ];
  return bounds.find(([bound]) => n < bound)?.[1] ?? "n>10M";
}
