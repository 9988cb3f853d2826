// Decodes stickers by one process of its own, for clip_cache.test.ts to kill. Arguments: folder, folder of the cache, names.

import { openClipCache } from "../data/clip_cache.ts";

const [dir, cacheDir, ...names] = process.argv.slice(2);
(await openClipCache(dir, names, { size: 16, frames: 8 }, { cacheDir, processes: 1 })).close();
