#!/usr/bin/env node
// `npm run dataset:scale`: everything is in main.ts.

import { startMain } from "../start_main.mjs";

await startMain("scale");
