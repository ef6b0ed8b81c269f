// Enlarges pictures, away from the page's own thread.
//
// Takes {upscale: File, scale} and {cancel: true}; posts
// {runs: words}, {progress: {done, tiles, left}}, {done: Blob, width, height, seconds},
// {cancelled: true} and {problem: sentence}.

import * as alphas from "./alpha.js";
import { Problem, read, toPng } from "./picture.js";
import { hasGpu, load, threads } from "./runtime.js";
import { corners, cut, put, toBytes } from "./tiles.js";

const LARGEST = 250e6; // pixels of a result: memory for it, and what viewers can open

class Cancelled extends Error {}

let config; // of models.json
let runtime; // of onnxruntime-web, once it is loaded
const sessions = {}; // of each model that was used, by file and provider
let cancelled = false;

self.onmessage = async ({ data }) => {
  if (data.cancel) {
    cancelled = true;
    return;
  }
  cancelled = false;
  try {
    self.postMessage(await upscale(data.upscale, data.scale));
  } catch (error) {
    if (error instanceof Cancelled) self.postMessage({ cancelled: true });
    else if (error instanceof Problem) self.postMessage({ problem: error.message });
    else self.postMessage({ problem: `This did not work: ${error.message ?? error}` });
  }
};

async function upscale(file, scale) {
  config ??= await (await fetch("models.json")).json();
  const model = config.models.find((m) => m.scale === scale);
  const picture = await read(file);
  const { width, height, alpha } = picture;
  if (width * height * scale ** 2 > LARGEST) {
    throw new Problem(
      `${width} x ${height} pixels enlarged by ${scale} are more than ` +
        `${LARGEST / 1e6} megapixels: too many for a page. btsrn upscale takes them.`,
    );
  }
  const began = performance.now();
  const varies = alpha !== null && alpha.some((a) => a !== alpha[0]);
  if (alpha) alphas.bleed(picture.data, alpha, width, height);
  const session = await choose(model, picture);
  const passes = new Progress(corners(width, height, model.tile).length * (1 + varies));
  let rgb = await enlarge(session, model, picture, passes);
  if (picture.grey) rgb = alphas.triple(alphas.mean(rgb));
  let large = null;
  if (varies) {
    const soft = await enlarge(session, model, { width, height, data: alphas.triple(alpha) }, passes);
    large = alphas.enlarge(alpha, alphas.mean(soft), width, height, scale);
  } else if (alpha) {
    large = new Uint8Array(rgb.length / 3).fill(alpha[0]);
  }
  const result = { width: width * scale, height: height * scale, data: rgb, alpha: large };
  const done = await toPng(result);
  const seconds = (performance.now() - began) / 1000;
  return { done, width: result.width, height: result.height, seconds };
}

/** Returns a session for a model: on the GPU where that computes the same, else by WASM. */
async function choose(model, picture) {
  const gpu = await hasGpu();
  runtime ??= await load(config.runtime, gpu);
  const plain = await open(model, "wasm");
  if (!gpu) {
    said(`WebAssembly, ${threads()} thread${threads() > 1 ? "s" : ""}`);
    return plain;
  }
  try {
    const fast = await open(model, "webgpu");
    if (fast.agrees === undefined) {
      const [x, y] = corners(picture.width, picture.height, model.tile)[0];
      const [a, b] = [await run(fast, model, picture, x, y), await run(plain, model, picture, x, y)];
      fast.agrees = a.every((value, i) => Math.abs(value - b[i]) <= 1);
    }
    if (fast.agrees) {
      said("WebGPU");
      return fast;
    }
    said(`WebAssembly, ${threads()} threads: the GPU computes something else`);
  } catch {
    said(`WebAssembly, ${threads()} threads: the GPU does not take the network`);
  }
  return plain;
}

function said(runs) {
  self.postMessage({ runs });
}

async function open(model, provider) {
  const key = `${model.file} ${provider}`;
  if (!(key in sessions)) {
    let response;
    try {
      response = await fetch(model.file, { integrity: model.integrity });
      if (!response.ok) throw new Error();
    } catch {
      throw new Problem(`${model.file} could not be loaded, or is not the file that was exported.`);
    }
    const bytes = new Uint8Array(await response.arrayBuffer());
    sessions[key] = await runtime.InferenceSession.create(bytes, {
      executionProviders: [provider],
    });
  }
  return sessions[key];
}

/** Returns an enlarged tile as planes of bytes. */
async function run(session, model, picture, x, y) {
  const side = model.tile + 2 * model.halo;
  const values = cut(picture, x, y, model.tile, model.halo);
  const lr = new runtime.Tensor("float32", values, [1, 3, side, side]);
  const { sr } = await session.run({ lr });
  const bytes = toBytes(await sr.getData());
  sr.dispose();
  return bytes;
}

async function enlarge(session, model, picture, progress) {
  const { tile, scale } = model;
  const [width, height] = [picture.width * scale, picture.height * scale];
  const result = { width, height, data: new Uint8Array(3 * width * height) };
  for (const [x, y] of corners(picture.width, picture.height, tile)) {
    const bytes = await run(session, model, picture, x, y);
    put(result, bytes, x * scale, y * scale, tile * scale);
    progress.step();
    await new Promise((resolve) => setTimeout(resolve)); // or "cancel" would not arrive
    if (cancelled) throw new Cancelled();
  }
  return result.data;
}

/** Posts how many tiles are done and, from the second on, the seconds that are left. */
class Progress {
  constructor(tiles) {
    this.tiles = tiles;
    this.done = 0;
  }

  step() {
    const now = performance.now();
    this.first ??= now;
    this.done++;
    const each = (now - this.first) / (this.done - 1) / 1000;
    const left = this.done > 1 ? each * (this.tiles - this.done) : null;
    self.postMessage({ progress: { done: this.done, tiles: this.tiles, left } });
  }
}
