// The one predictor of PNG that needs a definition, shared by the APNG writer and the decoder.

/** Whichever of left, up and upper left is nearest to left + up - corner, ties in that order (PNG 9.4). */
export function paeth(left: number, up: number, corner: number): number {
  const estimate = left + up - corner;
  const toLeft = Math.abs(estimate - left);
  const toUp = Math.abs(estimate - up);
  const toCorner = Math.abs(estimate - corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
