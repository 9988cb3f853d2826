// A solid placed in the scene: its pose as a coordinate map, its distance field, and rays marched to it.
// Called by real.ts, which owns camera, light and colour. Positions are [x, y, z] in scene units, floor at y = 0.

import type { Pose } from "./actions.ts";
import { PICTURE_SHARE } from "./lettering.ts";
import type { Recipe } from "./plan.ts";
import type { Shape, Solid } from "./solids.ts";

export type Vec = readonly [x: number, y: number, z: number];

/** Height and width of a solid at rest. */
const SIDE = 1.4;
const HOVER = 0.5;
/** Motions were made for the cartoon stage: in perspective a leap may rise less, and a slide must go further to leave. */
const RISE = 0.8;
const STRIDE = 1.3;

export interface Body {
  readonly solid: Solid;
  /** Scene position of the shape's point (0, pivot, 0), about which it is scaled and turned. */
  readonly at: Vec;
  readonly pivot: number;
  readonly scaleX: number;
  readonly scaleY: number;
  readonly cosTurn: number;
  readonly sinTurn: number;
  readonly cosYaw: number;
  readonly sinYaw: number;
  /** A sphere around it. */
  readonly centre: Vec;
  readonly radius: number;
}

/** The solid of `recipe` in `pose`, and its copy where the pose has one. */
export function placeBodies(recipe: Recipe, solid: Solid, pose: Pose): Body[] {
  const { shape } = solid;
  const side = SIDE * recipe.zoom;
  const way = recipe.mirror ? -1 : 1;
  const spins = recipe.action === "spin";
  // A spin shows all sides: it turns about the upright axis. Every other turn is in the plane of the picture.
  const turn = spins ? 0 : (way * pose.turn * Math.PI) / 180;
  const yaw = ((shape.yaw + (spins ? way * pose.turn : 0)) * Math.PI) / 180;
  const [scaleX, scaleY] = [side * pose.scaleX, side * pose.scaleY];
  const pivot = pose.pivot < 0 ? shape.foot : 0;
  // Tilted, a flat base digs its edge into the floor: raise it by as much.
  const lift = shape.base * scaleX * Math.abs(Math.sin(turn)) + (recipe.action === "float" ? HOVER : 0);
  const y = (pivot - shape.foot) * scaleY + RISE * side * pose.dy + lift;
  const up = -pivot * scaleY;
  const stride = pose.copyDx === 0 ? 1 : recipe.text === null ? STRIDE : STRIDE / PICTURE_SHARE;
  return (pose.copyDx === 0 ? [0] : [0, pose.copyDx]).map((extra) => {
    const x = way * stride * side * (pose.dx + extra) + recipe.shiftX;
    return {
      solid,
      at: [x, y, 0],
      pivot,
      scaleX,
      scaleY,
      cosTurn: Math.cos(turn),
      sinTurn: Math.sin(turn),
      cosYaw: Math.cos(yaw),
      sinYaw: Math.sin(yaw),
      centre: [x + up * Math.sin(turn), y + up * Math.cos(turn), 0],
      radius: reach(shape) * Math.max(scaleX, scaleY),
    };
  });
}

/** Radius around the shape's origin that holds all of it: to the rim of its base, or its foot, and a little more. */
function reach({ base, foot }: Shape): number {
  return 1.02 * Math.max(Math.hypot(base * (base > 0 ? Math.SQRT2 : 1), foot), 0.56);
}

/** Distance from a scene point to the body, or a lower bound of it. */
export function distanceTo(b: Body, x: number, y: number, z: number): number {
  const ex = x - b.at[0];
  const ey = y - b.at[1];
  const lx = (ex * b.cosTurn - ey * b.sinTurn) / b.scaleX;
  const ly = (ex * b.sinTurn + ey * b.cosTurn) / b.scaleY + b.pivot;
  const lz = z / b.scaleX;
  const d = b.solid.shape.distance(lx * b.cosYaw - lz * b.sinYaw, ly, lx * b.sinYaw + lz * b.cosYaw);
  return d * Math.min(b.scaleX, b.scaleY);
}

/** Angle of a scene point around the solid's own axis, in turns [0, 1). */
export function longitude(b: Body, x: number, y: number, z: number): number {
  const lx = (x - b.at[0]) * b.cosTurn - (y - b.at[1]) * b.sinTurn;
  return Math.atan2(lx * b.cosYaw - z * b.sinYaw, lx * b.sinYaw + z * b.cosYaw) / (2 * Math.PI) + 0.5;
}

/** Whether a unit ray passes within `margin` of the body's bounding sphere, ahead of its origin. */
export function passesNear(b: Body, o: Vec, d: Vec, margin: number): boolean {
  const cx = b.centre[0] - o[0];
  const cy = b.centre[1] - o[1];
  const cz = b.centre[2] - o[2];
  const along = Math.max(0, cx * d[0] + cy * d[1] + cz * d[2]);
  return cx * cx + cy * cy + cz * cz - along * along < (b.radius + margin) ** 2;
}

/** Distance along a unit ray to the body, or Infinity. Sphere tracing (Hart 1996) inside the bounding sphere. */
export function march(b: Body, o: Vec, d: Vec): number {
  const cx = b.centre[0] - o[0];
  const cy = b.centre[1] - o[1];
  const cz = b.centre[2] - o[2];
  const along = cx * d[0] + cy * d[1] + cz * d[2];
  const inside = along * along - (cx * cx + cy * cy + cz * cz) + b.radius * b.radius;
  if (inside <= 0) return Number.POSITIVE_INFINITY;
  const far = along + Math.sqrt(inside);
  let t = Math.max(along - Math.sqrt(inside), 0);
  for (let i = 0; i < 48 && t < far; i++) {
    const step = distanceTo(b, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]);
    if (step < 0.002) return t;
    t += step;
  }
  return Number.POSITIVE_INFINITY;
}

/** Unit normal of the distance field: differences to the four corners of a small tetrahedron. */
export function normalAt(b: Body, [x, y, z]: Vec): Vec {
  const e = 0.002;
  const [p, q] = [distanceTo(b, x + e, y - e, z - e), distanceTo(b, x - e, y - e, z + e)];
  const [r, s] = [distanceTo(b, x - e, y + e, z - e), distanceTo(b, x + e, y + e, z + e)];
  const [nx, ny, nz] = [p - q - r + s, -p - q + r + s, -p + q - r + s];
  const length = Math.sqrt(nx * nx + ny * ny + nz * nz) || 1;
  return [nx / length, ny / length, nz / length];
}
