// Draws a "Real" recipe: a lit solid on a floor under a sky, with soft shadow and sensor noise, cast ray by ray on the
// CPU. Four samples a pixel, each seeing another point of the lamp. Geometry is body.ts. Called by index.ts.

import { poseAt } from "./actions.ts";
import { type Body, distanceTo, longitude, march, normalAt, passesNear, placeBodies, type Vec } from "./body.ts";
import { findSolid } from "./cast.ts";
import { Draws } from "./draws.ts";
import { PICTURE_SHARE } from "./lettering.ts";
import type { Recipe } from "./plan.ts";
import type { Premultiplied } from "./raster.ts";
import { FLOORS, type FloorId } from "./solids.ts";

const EYE: Vec = [0, 1.75, 5.2];
/** Unit vectors of a camera that looks at (0, 1.05, 0); right is +x. */
const AHEAD: Vec = unit([0, -0.7, -5.2]);
const UP: Vec = [0, -AHEAD[2], AHEAD[1]];
/** Half the width of the view at distance 1. */
const HALF_VIEW = 0.31;
/** Sub-pixel positions (a rotated grid), each with the point of the lamp it sees: above, to the left, in front. */
const SAMPLES: readonly { readonly x: number; readonly y: number; readonly lamp: Vec }[] = [
  { x: 0.125, y: 0.625, lamp: [-2.6, 5.2, 3.2] },
  { x: 0.375, y: 0.125, lamp: [-2.0, 5.5, 3.0] },
  { x: 0.625, y: 0.875, lamp: [-3.0, 5.0, 2.6] },
  { x: 0.875, y: 0.375, lamp: [-2.3, 5.3, 3.7] },
];
const HORIZON: Vec = [0.72, 0.78, 0.86];
const ZENITH: Vec = [0.3, 0.46, 0.76];
/** Reach of the darkening where solid and floor come close. */
const CREVICE = 0.4;
/** What a pixel's centre ray may miss by: the pixel's extent in the scene and the lamp's in its shadow. */
const FOOTPRINT = 0.2;
/** Standard deviation of the sensor noise, in steps of 1/255. */
const NOISE = 2.2;

/** Frame k of a "Real" sticker, without its text; opaque. */
export function realFrame(recipe: Recipe, k: number): Premultiplied {
  const pose = poseAt(recipe.action, k, recipe.frames, recipe.vigour);
  const bodies = placeBodies(recipe, findSolid(recipe.subject), pose);
  const scene: Scene = { bodies, floor: FLOORS[recipe.ground as FloorId] };
  const picture = recipe.text === null ? 1 : PICTURE_SHARE; // the lower edge is left to the words
  const plate = emptyPlate(recipe.ground as FloorId, recipe.size, picture);
  const noise = gaussians(new Draws(recipe.seed, recipe.index).bits(`noise ${k}`));
  const out = new Uint8Array(recipe.size ** 2 * 4).fill(255);
  const light = [0, 0, 0];
  for (let i = 0; i < recipe.size ** 2; i++) {
    if (bodiesMatter(bodies, rayThrough(i, 0.5, 0.5, recipe.size, picture))) {
      exposePixel(light, scene, i, recipe.size, picture);
    } else {
      for (let c = 0; c < 3; c++) light[c] = plate[3 * i + c];
    }
    for (let c = 0; c < 3; c++) out[4 * i + c] = encode(light[c], NOISE * noise());
  }
  return out;
}

const plates = new Map<string, Float64Array>();

/** Linear RGB of the scene without solids. Most of a sticker's pixels never change, and many stickers share them. */
function emptyPlate(ground: FloorId, size: number, picture: number): Float64Array {
  const key = `${ground} ${size} ${picture}`;
  let plate = plates.get(key);
  if (!plate) {
    plate = new Float64Array(size * size * 3);
    const light = [0, 0, 0];
    for (let i = 0; i < size * size; i++) {
      exposePixel(light, { bodies: [], floor: FLOORS[ground] }, i, size, picture);
      plate.set(light, 3 * i);
    }
    plates.set(key, plate);
  }
  return plate;
}

/** Mean linear RGB of pixel i, into `light`. */
function exposePixel(light: number[], scene: Scene, i: number, size: number, picture: number): void {
  light.fill(0);
  for (const { x, y, lamp } of SAMPLES) {
    const seen = radiance(scene, rayThrough(i, x, y, size, picture), lamp);
    for (let c = 0; c < 3; c++) light[c] += seen[c] / SAMPLES.length;
  }
}

/** False if the pixel around `ray` can show no solid, no shadow and no darkened floor. Errs towards true. */
function bodiesMatter(bodies: readonly Body[], ray: Vec): boolean {
  const floor = ray[1] < 0 ? along(ray, -EYE[1] / ray[1]) : undefined;
  return bodies.some(
    (body) =>
      passesNear(body, EYE, ray, FOOTPRINT) ||
      (floor && passesNear(body, floor, unit(minus(SAMPLES[0].lamp, floor)), CREVICE + FOOTPRINT)),
  );
}

interface Scene {
  readonly bodies: readonly Body[];
  readonly floor: { readonly light: Vec; readonly dark: Vec };
}

/** Ray through pixel i at (x, y) within it; `picture` < 1 shrinks the view upwards. */
function rayThrough(i: number, x: number, y: number, size: number, picture: number): Vec {
  const across = ((2 * ((i % size) + x)) / size - 1) / picture;
  const upwards = 1 - (2 * (Math.floor(i / size) + y)) / size / picture;
  const rise = upwards * HALF_VIEW;
  return unit([across * HALF_VIEW, AHEAD[1] + rise * UP[1], AHEAD[2] + rise * UP[2]]);
}

/** Linear RGB seen along `ray` from the camera. */
function radiance(scene: Scene, ray: Vec, lamp: Vec): Vec {
  let nearest: Body | undefined;
  let t = Number.POSITIVE_INFINITY;
  for (const body of scene.bodies) {
    const reached = march(body, EYE, ray);
    if (reached < t) [t, nearest] = [reached, body];
  }
  const toFloor = ray[1] < 0 ? -EYE[1] / ray[1] : Number.POSITIVE_INFINITY;
  if (nearest && t < toFloor) return solidColour(scene, nearest, along(ray, t), ray, lamp);
  const sky = mix(HORIZON, ZENITH, Math.min(1, Math.max(0, ray[1] * 2.5)));
  if (toFloor === Number.POSITIVE_INFINITY) return sky;
  return mix(sky, floorColour(scene, along(ray, toFloor), lamp), Math.exp(-0.05 * Math.max(0, toFloor - 6)));
}

function solidColour(scene: Scene, body: Body, point: Vec, ray: Vec, lamp: Vec): Vec {
  const normal = normalAt(body, point);
  const toLamp = unit(minus(lamp, point));
  const lit = Math.max(0, dot(normal, toLamp));
  const lifted: Vec = [point[0] + 0.02 * normal[0], point[1] + 0.02 * normal[1], point[2] + 0.02 * normal[2]];
  const seen = lit > 0 ? visibility(scene, lifted, toLamp) : 0;
  const ambient = 0.3 + 0.16 * normal[1];
  const gloss = 0.4 * seen * Math.max(0, dot(normal, unit(minus(toLamp, ray)))) ** 50; // Blinn 1977
  const [r, g, b] = paint(body, point);
  const light = ambient + 1.05 * lit * seen;
  return [r * light + gloss, g * light + gloss, b * light + gloss];
}

/** The solid's own colour; on striped ones every other sector is lighter (darker on white). */
function paint(body: Body, [x, y, z]: Vec): Vec {
  const { albedo, shape } = body.solid;
  if (!shape.striped || Math.floor(8 * longitude(body, x, y, z)) % 2 === 0) return albedo;
  return mix(albedo, albedo[1] > 0.7 ? [0.25, 0.27, 0.3] : [0.85, 0.85, 0.85], 0.62);
}

function floorColour({ bodies, floor }: Scene, point: Vec, lamp: Vec): Vec {
  const odd = (Math.floor(point[0] / 0.62) + Math.floor(point[2] / 0.62)) & 1;
  const toLamp = unit(minus(lamp, point));
  const seen = visibility({ bodies, floor }, point, toLamp);
  let open = 1; // how much sky the point sees: less close under a solid
  for (const body of bodies) {
    const offset = minus(body.centre, point);
    if (dot(offset, offset) > (body.radius + CREVICE) ** 2) continue;
    open = Math.min(open, 0.35 + 0.65 * Math.max(0, distanceTo(body, point[0], point[1], point[2]) / CREVICE));
  }
  const light = 0.34 * Math.min(1, open) + 0.75 * toLamp[1] * seen;
  const [r, g, b] = odd ? floor.light : floor.dark;
  return [r * light, g * light, b * light];
}

/** 1 if nothing stands between the point and the lamp, else 0. */
function visibility({ bodies }: Scene, from: Vec, toLamp: Vec): number {
  return bodies.some((body) => march(body, from, toLamp) < Number.POSITIVE_INFINITY) ? 0 : 1;
}

/** 255 * x^(1/2.2) at 4096 levels of linear light; a power a pixel would cost as much as the ray. */
const GAMMA = Float32Array.from({ length: 4097 }, (_, i) => 255 * (i / 4096) ** (1 / 2.2));

/** Linear light to an 8-bit value with noise added, as a sensor does it: before rounding. */
function encode(linear: number, noise: number): number {
  return Math.min(255, Math.max(0, Math.round(GAMMA[Math.min(4096, Math.round(4096 * linear))] + noise)));
}

/** Near-normal numbers of variance 1: the four bytes of one xorshift32 (Marsaglia 2003), summed (Irwin-Hall). */
function gaussians(seed: number): () => number {
  let state = seed || 1;
  const scale = Math.sqrt(3 / (256 ** 2 - 1)); // a byte has variance (256^2 - 1) / 12
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return scale * ((state & 255) + ((state >>> 8) & 255) + ((state >>> 16) & 255) + (state >>> 24) - 510);
  };
}

function dot(a: Vec, b: Vec): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function minus(a: Vec, b: Vec): Vec {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

function unit(v: Vec): Vec {
  const length = Math.sqrt(dot(v, v));
  return [v[0] / length, v[1] / length, v[2] / length];
}

function mix(a: Vec, b: Vec, share: number): Vec {
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

/** The point at distance t from the camera. */
function along(ray: Vec, t: number): Vec {
  return [EYE[0] + t * ray[0], EYE[1] + t * ray[1], EYE[2] + t * ray[2]];
}
