// What the "Real" stickers show: eight solids in eight colours, as signed distance functions, and the floors they are
// on. These are rendered images of lit solids, not photographs. Ray casting is real.ts; wording is captions.ts.

export interface Solid {
  readonly en: string;
  readonly zh: string;
  readonly tags: readonly string[];
  readonly tagsZh: readonly string[];
  readonly shape: Shape;
  /** Linear RGB. */
  readonly albedo: readonly [r: number, g: number, b: number];
}

export interface Shape {
  readonly en: string;
  readonly zh: string;
  /** Signed distance to a solid within the cube of side 1 around 0, or a lower bound of it. */
  readonly distance: (x: number, y: number, z: number) => number;
  /** Lowest y of the solid. */
  readonly foot: number;
  /** Radius of the flat face it stands on; 0 where it stands on a curve or a corner. */
  readonly base: number;
  /** Turned away from the viewer by this many degrees, so that its sides show. */
  readonly yaw: number;
  /** Solids of revolution carry stripes: without them a spin could not be seen. */
  readonly striped: boolean;
}

/** Distance functions after Inigo Quilez, "Distance functions", with the sizes chosen here. */
const SHAPES: readonly Shape[] = [
  {
    en: "striped ball",
    zh: "条纹球",
    distance: (x, y, z) => Math.sqrt(x * x + y * y + z * z) - 0.5,
    foot: -0.5,
    base: 0,
    yaw: 0,
    striped: true,
  },
  {
    en: "cube",
    zh: "立方体",
    distance: (x, y, z) => {
      const a = Math.abs(x) - 0.36;
      const b = Math.abs(y) - 0.36;
      const c = Math.abs(z) - 0.36;
      const outside = Math.sqrt(Math.max(a, 0) ** 2 + Math.max(b, 0) ** 2 + Math.max(c, 0) ** 2);
      return outside + Math.min(Math.max(a, b, c), 0) - 0.05;
    },
    foot: -0.41,
    base: 0.41,
    yaw: 32,
    striped: false,
  },
  {
    en: "striped cylinder",
    zh: "条纹圆柱体",
    distance: (x, y, z) => {
      const a = Math.sqrt(x * x + z * z) - 0.33;
      const b = Math.abs(y) - 0.42;
      return Math.sqrt(Math.max(a, 0) ** 2 + Math.max(b, 0) ** 2) + Math.min(Math.max(a, b), 0) - 0.04;
    },
    foot: -0.46,
    base: 0.37,
    yaw: 0,
    striped: true,
  },
  {
    en: "striped cone",
    zh: "条纹圆锥体",
    distance: (x, y, z) => Math.max((Math.sqrt(x * x + z * z) + 0.45 * (y - 0.5)) * 0.912, -0.5 - y),
    foot: -0.5,
    base: 0.45,
    yaw: 0,
    striped: true,
  },
  {
    en: "ring",
    zh: "圆环",
    distance: (x, y, z) => Math.sqrt((Math.sqrt(x * x + y * y) - 0.36) ** 2 + z * z) - 0.14,
    foot: -0.5,
    base: 0,
    yaw: 25,
    striped: false,
  },
  {
    en: "striped capsule",
    zh: "条纹胶囊",
    distance: (x, y, z) => Math.sqrt(x * x + (y - Math.min(0.22, Math.max(-0.22, y))) ** 2 + z * z) - 0.28,
    foot: -0.5,
    base: 0,
    yaw: 0,
    striped: true,
  },
  {
    en: "pyramid",
    zh: "金字塔",
    distance: (x, y, z) => Math.max((Math.max(Math.abs(x), Math.abs(z)) + 0.47 * (y - 0.45)) * 0.905, -0.45 - y),
    foot: -0.45,
    base: 0.42,
    yaw: 30,
    striped: false,
  },
  {
    en: "octahedron",
    zh: "八面体",
    distance: (x, y, z) => (Math.abs(x) + Math.abs(y) + Math.abs(z) - 0.56) * 0.577,
    foot: -0.56,
    base: 0,
    yaw: 20,
    striped: false,
  },
];

const COLOURS = [
  { en: "red", zh: "红色", albedo: [0.72, 0.05, 0.05] },
  { en: "orange", zh: "橙色", albedo: [0.85, 0.28, 0.02] },
  { en: "yellow", zh: "黄色", albedo: [0.82, 0.62, 0.04] },
  { en: "green", zh: "绿色", albedo: [0.07, 0.42, 0.08] },
  { en: "blue", zh: "蓝色", albedo: [0.04, 0.16, 0.68] },
  { en: "purple", zh: "紫色", albedo: [0.3, 0.07, 0.5] },
  { en: "white", zh: "白色", albedo: [0.8, 0.8, 0.78] },
  { en: "black", zh: "黑色", albedo: [0.025, 0.025, 0.03] },
] as const;

export const SOLIDS: readonly Solid[] = SHAPES.flatMap((shape) =>
  COLOURS.map(({ en, zh, albedo }) => ({
    en: `${en === "orange" ? "an" : "a"} ${en} ${shape.en}`,
    zh: `一个${zh}${shape.zh}`,
    tags: [...shape.en.split(" "), en, "solid", "3d"],
    tagsZh: [shape.zh, zh, "立体"],
    shape,
    albedo,
  })),
);

/** Floors: linear RGB of the two squares of the pattern (equal: plain). */
export const FLOORS = {
  gray: { en: "gray floor", zh: "灰色地面", light: [0.5, 0.5, 0.5], dark: [0.5, 0.5, 0.5] },
  checkered: { en: "checkered floor", zh: "格子地面", light: [0.6, 0.58, 0.55], dark: [0.22, 0.21, 0.2] },
  green: { en: "green floor", zh: "绿色地面", light: [0.22, 0.42, 0.2], dark: [0.22, 0.42, 0.2] },
  sandy: { en: "sandy floor", zh: "沙色地面", light: [0.62, 0.48, 0.3], dark: [0.62, 0.48, 0.3] },
} as const;

export type FloorId = keyof typeof FLOORS;
