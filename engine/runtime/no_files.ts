// Stands in for node:fs/promises and atomic.ts in a browser (package.json's field "browser"): checkpoints are read from bytes
// there, with `parseTensors`, and every function that takes a path says so.

function refuse(): never {
  throw new Error("a browser has no files to open by path: fetch the bytes and use parseTensors");
}

export const open = refuse;
export const replaceFile = refuse;
export const syncFolder = refuse;
export const constants = { O_RDONLY: 0 };
