// The variable-width LZW of GIF (GIF89a specification, appendix F): codes of up to 12 bits, least significant bit
// first, a clear code, and a table that stays as it is once full. Decoding only; ../encode uses gifenc.

const MAX_BITS = 12;
const MAX_CODES = 1 << MAX_BITS;

/**
 * Decodes `data` into `out` until it is full, the end code or the end of the data.
 * @returns how many bytes of `out` were written
 * @throws Error on a code that is not in the table yet
 */
export function decodeLzw(data: Uint8Array, literalBits: number, out: Uint8Array): number {
  const clearCode = 1 << literalBits;
  // Every string of the table stands in `out` already: the string before, and behind it the first byte of the one after.
  const starts = new Int32Array(MAX_CODES);
  const lengths = new Uint16Array(MAX_CODES);
  let next = clearCode + 2;
  let bits = literalBits + 1;
  let previous = 0; // length of the string before, and where it starts; 0: there is none
  let previousAt = 0;
  let written = 0;
  let held = 0; // bits read but not used, and how many they are
  let heldBits = 0;
  for (const byte of data) {
    held |= byte << heldBits;
    heldBits += 8;
    while (heldBits >= bits) {
      const code = held & ((1 << bits) - 1);
      held >>>= bits;
      heldBits -= bits;
      if (code === clearCode + 1 || written >= out.length) return written;
      if (code === clearCode) {
        next = clearCode + 2;
        bits = literalBits + 1;
        previous = 0;
        continue;
      }
      const known = code < clearCode || (previous > 0 && (code < next || (code === next && next < MAX_CODES)));
      if (!known) throw new Error(`the LZW data is corrupt (code ${code}, table of ${next})`);
      if (previous > 0 && next < MAX_CODES) {
        starts[next] = previousAt;
        lengths[next++] = previous + 1;
      }
      // Of literals of one bit the table is full for its codes before it has an entry: they widen behind the first.
      if (next === 1 << bits && bits < MAX_BITS) bits++;
      previousAt = written;
      previous = code < clearCode ? 1 : lengths[code];
      if (code < clearCode) out[written++] = code;
      else {
        // Forwards: the one code that may name the entry just made reads the byte that it writes first.
        const end = Math.min(written + previous, out.length); // what does not fit is dropped
        for (let from = starts[code]; written < end; ) out[written++] = out[from++];
      }
    }
  }
  return written;
}
