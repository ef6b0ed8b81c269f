// onnxruntime-web: every file of it is fetched with the digest that is pinned in
// models.json, from beside the page or from a CDN, and used from memory.

import { Problem } from "./picture.js";

/** Whether this browser offers a GPU to pages. */
export async function hasGpu() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

/**
 * Loads onnxruntime-web.
 *
 * @param {object} pinned - `runtime` of models.json: base, version, and per kind ("wasm",
 *   "webgpu") the three files [module, glue, program] with their digests
 * @param {boolean} gpu - whether to load the build that can use a GPU
 */
export async function load(pinned, gpu) {
  const base = new URL(pinned.base, self.location.href);
  const names = Object.keys(pinned.files[gpu ? "webgpu" : "wasm"]);
  const digests = pinned.files[gpu ? "webgpu" : "wasm"];
  const [module, glue, program] = await Promise.all(
    names.map(async (name) => {
      let response;
      try {
        response = await fetch(new URL(name, base), { integrity: digests[name] });
      } catch {
        throw new Problem(
          `onnxruntime-web ${pinned.version} could not be loaded from ${base.host}: ` +
            `there is no connection, or ${name} is not the file that this page expects.`,
        );
      }
      if (!response.ok) {
        throw new Problem(`${base.host} has no ${name} (it answers ${response.status}).`);
      }
      const type = name.endsWith(".wasm") ? "application/wasm" : "text/javascript";
      return URL.createObjectURL(new Blob([await response.arrayBuffer()], { type }));
    }),
  );
  const ort = await import(module);
  ort.env.wasm.wasmPaths = { mjs: glue, wasm: program };
  ort.env.wasm.numThreads = threads();
  ort.env.logLevel = "error";
  return ort;
}

/** How many threads WebAssembly may use: one unless the page is isolated from others. */
export function threads() {
  return self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
}
