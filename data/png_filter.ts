// PNG's five row predictors (PNG specification, 3rd edition, section 9), shared by the APNG writer and the decoder.

/** What filter `type` (0..4) expects a byte to be from its left, upper and upper left neighbours. */
export function predictor(type: number, left: number, up: number, corner: number): number {
  switch (type) {
    case 0:
      return 0;
    case 1:
      return left;
    case 2:
      return up;
    case 3:
      return (left + up) >> 1;
    default:
      return paeth(left, up, corner);
  }
}

/** Whichever of left, up and upper left is nearest to left + up - corner, ties in that order. */
function paeth(left: number, up: number, corner: number): number {
  const estimate = left + up - corner;
  const toLeft = Math.abs(estimate - left);
  const toUp = Math.abs(estimate - up);
  const toCorner = Math.abs(estimate - corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
