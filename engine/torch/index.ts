// Public surface of torch checkpoint reading: re-exports and nothing else.

export { TorchFileError } from "./error.ts";
export { openTorch, parseTorch, TorchFile, torch } from "./file.ts";
