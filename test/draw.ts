export * from "../engine/testing/draw.ts";
