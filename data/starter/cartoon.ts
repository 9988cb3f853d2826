// Draws a cartoon recipe: emoji art posed by its action, on its ground, with optional die-cut border and eyelids.
// One small SVG a frame, so edges stay sharp under any motion. Called by index.ts.

import { ACTIONS, eyelidPose, type Pose, poseAt } from "./actions.ts";
import { emojiArt } from "./assets.ts";
import { findSubject } from "./cast.ts";
import { type GroundId, groundFill, groundSvg } from "./grounds.ts";
import { PICTURE_SHARE } from "./lettering.ts";
import type { Recipe } from "./plan.ts";
import { type Premultiplied, rasterise } from "./raster.ts";
import type { Subject } from "./subjects.ts";

const ART_SIDE = 36;
/** Width of the white border, in art units. */
const BORDER = 3.2;

/** Frame k of a cartoon sticker, without its text. */
export function cartoonFrame(recipe: Recipe, k: number): Premultiplied {
  const subject = findSubject(recipe.subject);
  const ground = recipe.ground as GroundId;
  const withLids = recipe.action === "blink" && subject.eyes !== undefined;
  const pose = withLids ? eyelidPose(k, recipe.frames) : poseAt(recipe.action, k, recipe.frames, recipe.vigour);
  const figure = `<g transform="translate(-0.5 -0.5) scale(${1 / ART_SIDE})">${figureSvg(subject, recipe, pose)}</g>`;
  const offsets = pose.copyDx === 0 ? [0] : [0, pose.copyDx];
  const copies = offsets.map((dx) => `<g transform="${place(recipe, pose, dx)}">${figure}</g>`).join("");
  const box =
    recipe.text === null ? "" : `transform="translate(${(1 - PICTURE_SHARE) / 2} 0.01) scale(${PICTURE_SHARE})"`;
  return rasterise(`${groundSvg(ground)}<g ${box}>${copies}</g>`, recipe.size);
}

/** SVG transform from the figure's unit square around 0 to the stage. SVG's y points down. */
function place({ action, mirror, zoom, shiftX, text }: Recipe, pose: Pose, extraDx: number): string {
  const { fit, rest } = ACTIONS[action];
  const side = fit * zoom;
  const way = mirror ? -1 : 1;
  // Where words shrink the picture, whoever crosses it must still leave the whole sticker.
  const stride = pose.copyDx !== 0 && text !== null ? 1 / PICTURE_SHARE : 1;
  const x = 0.5 + shiftX + way * stride * side * (pose.dx + extraDx);
  const y = 1 - rest - side * (pose.dy + pose.pivot);
  return (
    `translate(${x} ${y}) rotate(${way * pose.turn}) scale(${side * pose.scaleX} ${side * pose.scaleY}) ` +
    `translate(0 ${pose.pivot})`
  );
}

function figureSvg(subject: Subject, { outline, ground }: Recipe, pose: Pose): string {
  const art = emojiArt(subject.code);
  const border = outline
    ? `<g fill="#fff" stroke="#fff" stroke-width="${BORDER}" stroke-linejoin="round">${silhouette(art, "#fff")}</g>`
    : "";
  if (pose.fade === 0) return border + art + eyelids(subject, pose.lids);
  // Dissolving by opacity would leave holes in a GIF, whose alpha has one bit: lay the art thinly over a cut-out in
  // the ground's colour instead.
  const fill = groundFill(ground as GroundId);
  return `${border}<g fill="${fill}">${silhouette(art, fill)}</g><g opacity="${1 - pose.fade}">${art}</g>`;
}

/** The art with every paint replaced by one colour. */
function silhouette(art: string, colour: string): string {
  return art.replace(/(fill|stroke)="#[^"]*"/g, `$1="${colour}"`);
}

/** Eyelids of the skin's colour, closed from above to `shut` of the eye's height, edged with a dark lash line. */
function eyelids({ eyes = [], lid = "none" }: Subject, shut: number): string {
  if (shut < 0.05) return "";
  return eyes
    .map(([cx, cy, rx, ry]) => {
      const [a, b] = [rx + 0.4, ry + 0.4];
      const edge = Math.min(shut * 1.7 - 1, 0.3); // -1 top of the eye .. 1 bottom, in units of b
      const half = a * Math.sqrt(1 - edge * edge);
      const y = cy + b * edge;
      const [left, right] = [cx - half, cx + half];
      const cap = `M${left} ${y}A${a} ${b} 0 ${edge > 0 ? 1 : 0} 1 ${right} ${y}Z`;
      const below = edge >= 0.3 ? `<ellipse cx="${cx}" cy="${cy}" rx="${a}" ry="${b}" fill="${lid}"/>` : "";
      const lash = `<path d="M${left} ${y}L${right} ${y}" stroke="#3b2f2f" stroke-width="1" stroke-linecap="round"/>`;
      return `${below}<path d="${cap}" fill="${lid}"/>${lash}`;
    })
    .join("");
}
