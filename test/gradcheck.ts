export * from "../engine/testing/gradients.ts";
