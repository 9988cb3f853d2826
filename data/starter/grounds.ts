// What is behind a cartoon sticker: nothing, one colour, or polka dots of two shades. Drawn as SVG in a unit square.
// Called by plan.ts (choice), captions.ts (words), cartoon.ts (drawing).

export const COLOURS = {
  pink: { zh: "粉色", fill: "#ffc2d4", dots: "#ffd9e4" },
  yellow: { zh: "黄色", fill: "#ffe79c", dots: "#fff3cc" },
  green: { zh: "绿色", fill: "#bfe8b4", dots: "#d8f3d1" },
  blue: { zh: "蓝色", fill: "#b5dcff", dots: "#d6ecff" },
  purple: { zh: "紫色", fill: "#d6c4ff", dots: "#e7dcff" },
  orange: { zh: "橙色", fill: "#ffcf9c", dots: "#ffe3c6" },
  gray: { zh: "灰色", fill: "#d5dae0", dots: "#e6eaee" },
  black: { zh: "黑色", fill: "#2b2f38", dots: "#3d4350" },
} as const;

export type ColourId = keyof typeof COLOURS;
export const COLOUR_IDS = Object.keys(COLOURS) as readonly ColourId[];

/** "transparent", a colour, or "<colour> dots". */
export type GroundId = "transparent" | ColourId | `${ColourId} dots`;

function split(ground: Exclude<GroundId, "transparent">): { colour: ColourId; dotted: boolean } {
  const dotted = ground.endsWith(" dots");
  return { colour: (dotted ? ground.slice(0, -5) : ground) as ColourId, dotted };
}

/** The colour a flashing subject dissolves into: white where there is no ground, as viewers show it. */
export function groundFill(ground: GroundId): string {
  return ground === "transparent" ? "#ffffff" : COLOURS[split(ground).colour].fill;
}

/** SVG elements that cover the unit square. */
export function groundSvg(ground: GroundId): string {
  if (ground === "transparent") return "";
  const { colour, dotted } = split(ground);
  const base = `<rect width="1" height="1" fill="${COLOURS[colour].fill}"/>`;
  if (!dotted) return base;
  const dots = Array.from({ length: 25 }, (_, i) => {
    const row = Math.floor(i / 5);
    const x = ((i % 5) + (row % 2 ? 0.5 : 0)) / 4.5;
    return `<circle cx="${x.toFixed(3)}" cy="${((row + 0.5) / 5).toFixed(3)}" r="0.06"/>`;
  });
  return `${base}<g fill="${COLOURS[colour].dots}">${dots.join("")}</g>`;
}

/** "on a pink polka-dot background" and its Chinese place phrase; empty for a transparent ground. */
export function groundWords(ground: GroundId): { en: string; zh: string } {
  if (ground === "transparent") return { en: "", zh: "" };
  const { colour, dotted } = split(ground);
  const article = colour === "orange" ? "an" : "a";
  return {
    en: `on ${article} ${colour}${dotted ? " polka-dot" : ""} background`,
    zh: `${COLOURS[colour].zh}${dotted ? "圆点" : ""}背景`,
  };
}
