// The one error of torch files.

/** A torch file that is damaged, or that uses what is not allowed. One line: the file, and what is wrong. */
export class TorchFileError extends Error {
  override name = "TorchFileError";

  constructor(label: string, what: string) {
    // Names in the message come from the file: kept to one line of a sensible length.
    const printable = what.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, " ");
    super(`${label}: ${printable.length > 300 ? `${printable.slice(0, 300)}…` : printable}`);
  }
}
